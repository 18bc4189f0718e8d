"""How many products the operators of ONNX and ONNX Runtime add up: one count for every command and for lumping."""
