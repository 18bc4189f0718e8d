"""The rules, one module an operator family; importing this package registers all of them."""

from epsinas_onnx.lump.rules import (
    attention,
    contributed,
    control,
    convolution,
    einsum,
    elementwise,
    layout,
    matmul,
    normalisation,
    pooling,
    recurrent,
    reduction,
    resizing,
    rotary,
    softmax,
)

__all__ = [
    "attention",
    "contributed",
    "control",
    "convolution",
    "einsum",
    "elementwise",
    "layout",
    "matmul",
    "normalisation",
    "pooling",
    "recurrent",
    "reduction",
    "resizing",
    "rotary",
    "softmax",
]
