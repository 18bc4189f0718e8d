"""Writes the derivative of a graph's outputs by its inputs into the same graph, as ONNX nodes."""

from epsinas_onnx.proxies.reverse.append import append_gradient

__all__ = ["append_gradient"]
