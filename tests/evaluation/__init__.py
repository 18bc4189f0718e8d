"""Tests of `epsinas_onnx.evaluation`."""
