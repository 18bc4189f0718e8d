"""Lumping: lowers a graph whose weights are one constant to one in which equal channels are computed once."""

from epsinas_onnx.lump.lower import LumpedModel, lump

__all__ = ["LumpedModel", "lump"]
