"""The rules of the reverse pass, a family of operators a file."""

from epsinas_onnx.proxies.reverse.rules import (
    activations,
    arithmetic,
    convolution,
    definition,
    indexing,
    layout,
    linear,
    normalisation,
    pooling,
    recurrent,
    reductions,
    resizing,
    scan,
)

MODULES = (
    activations,
    arithmetic,
    convolution,
    definition,
    indexing,
    layout,
    linear,
    normalisation,
    pooling,
    recurrent,
    reductions,
    resizing,
    scan,
)
"""A module that is not here registers nothing."""
