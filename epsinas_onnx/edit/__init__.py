"""Writes another ONNX file: rewritten, stripped, filled, anonymised."""
