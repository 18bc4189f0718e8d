"""Tests of epsinas_onnx.graph."""
