"""Has what is compiled ready when it is imported: for the process that worker processes are forked from."""

from epsinas_onnx.evaluate_lumped.fused.compiled import machine

machine()
