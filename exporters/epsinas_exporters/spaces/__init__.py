"""Search spaces of NAS benchmarks, each written directly as ONNX graphs."""
