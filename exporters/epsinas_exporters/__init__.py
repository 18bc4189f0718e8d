"""Writes ONNX graphs: the search spaces of benchmarks here, models of training frameworks behind extras."""
