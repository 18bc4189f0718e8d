"""Owns a node while its rule works, and what the lowered graph is for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.passes.constant_weights import NormStats
from epsinas_onnx.lump.value import Dims


class SeparateRuns(Exception):
    """Raised where the constants cannot share one run: a shape, or how often a loop runs, differs between them."""


class ShapesMissing(Exception):
    """Raised where an operator needs shapes that have not been inferred yet."""


@dataclass(frozen=True)
class Target:
    """What the lowered graph is for.

    constants: how many constants go through one run. blocked: whether the provider is fast at depthwise convolutions
    over many channels and slow at one channel (the CPU provider with its blocked layout), rather than the reverse.
    bound: whether kernels are made of the constants before a session is made, rather than of an input.
    whole_norms: whether a standardisation is one node, and so a product with a matrix along an axis, of the domain
    `epsinas`, which only our own evaluator runs.
    node_cost: how many entries cost as much as a node does: lowering it, its session and its call.
    """

    constants: int = 1
    blocked: bool = True
    bound: bool = True
    norm_stats: NormStats = "batch"
    whole_norms: bool = False
    node_cost: int = 2**15

    @classmethod
    def evaluated(cls, norm_stats: NormStats = "batch") -> Target:
        """Return what our own evaluator takes."""
        return cls(1, False, True, norm_stats, whole_norms=True)


class Step:
    """One node of the user's graph while its rule works: attributes, and what inference knows of the outputs."""

    __slots__ = ("_found", "node", "order")

    def __init__(self, node: ir.Node, order: int) -> None:
        self.node = node
        self.order = order
        self._found: dict[str, ir.Attr] = node.attributes.data  # a plain dict, which is several times faster to ask

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        attribute = self._found.get(name)
        return default if attribute is None else int(attribute.value)

    def number(self, name: str, default: float) -> float:
        """Return a float attribute; a default is float32, as one in a file would be."""
        attribute = self._found.get(name)
        return float(np.float32(default)) if attribute is None else float(attribute.value)

    def text(self, name: str, default: str) -> str:
        """Return a string attribute."""
        attribute = self._found.get(name)
        return default if attribute is None else str(attribute.value)

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Return a list of integers, None where the attribute is absent."""
        attribute = self._found.get(name)
        return None if attribute is None else tuple(attribute.value)

    def attributes(self, *names: str) -> dict[str, Any]:
        """Return the attributes of the user's node as they are: those named, or all of them."""
        found = self._found
        return {name: found[name] for name in (names or found) if name in found}

    def out_shape(self, index: int = 0) -> Dims | None:
        """Return an output's shape as inference found it, None where it did not."""
        shape = self.node.outputs[index].shape
        if shape is None or not all(isinstance(dim, int) for dim in shape):
            return None
        return tuple(int(dim) for dim in shape)  # type: ignore[arg-type]

    def out_dtype(self, index: int = 0) -> ir.DataType | None:
        """Return an output's element type as inference found it."""
        return self.node.outputs[index].dtype
