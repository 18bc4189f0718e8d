"""ONNX Runtime: execution providers, sessions, and the memory that a run will need."""
