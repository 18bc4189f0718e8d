"""Lists the modules that hold rules, and finds the rule of an operator."""

from __future__ import annotations

from epsinas_onnx.lump.registry import RULES, Registered
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

MODULES = (
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
"""A module that is not here registers nothing."""


def find_rule(domain: str, op_type: str) -> Registered | None:
    """Return the rule of an operator, None where it has none and runs as it is."""
    return RULES.get((domain, op_type))
