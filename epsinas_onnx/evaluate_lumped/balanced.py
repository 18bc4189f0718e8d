"""Finds what is 0 because a normalisation made it so: sums with equal weights over what was centred."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.graph import LoweredGraph, Node
from epsinas_onnx.lump.value import Array, Dims, Tensor

_SAME = 1e-12
"""Shares that are closer than this, of one, are equal: they are quotients of whole numbers."""


def zeros_of(graph: LoweredGraph, nodes: Sequence[Node]) -> set[Node]:
    """Return the nodes whose first output is exactly 0, by what lowering knows of shapes and weights.

    Rounding would leave some bits of it, which a normalisation behind it could enlarge to a signal.
    """
    search = _Search(graph)
    return {node for node in nodes if search.is_zero(node)}


@dataclass
class _Search:
    """axes: by tensor those over which a sum is 0 for every index of the others. shares: how much each entry of the one
    axis counts in that sum, where not all count alike.
    """

    graph: LoweredGraph
    axes: dict[Tensor, frozenset[int]] = field(default_factory=dict)
    shares: dict[Tensor, Array] = field(default_factory=dict)

    def is_zero(self, node: Node) -> bool:
        """Whether a node gives 0; otherwise what is known of its output is noted. Nodes must come in order."""
        if not node.inputs or node.inputs[0] is None or any(t.shape is None for t in node.outputs[:1]):
            return False
        first = node.inputs[0]
        held = self.axes.get(first)
        if node.op_type == "Standardise":
            self._standardised(node)
            return False
        if held is None:
            if node.op_type in ("Add", "Mul"):  # the other operand may be what was centred
                self._kept(node, 1)
            return False
        if node.op_type in ("ReduceSum", "ReduceMean"):
            places = self._reduced(node, first)
            if places is not None and held <= places:
                return first not in self.shares
            if places is not None and not held & places:
                self._renumbered(node, first, held, places)
        elif node.op_type == "MatMul":
            return self._cancels(node, held)
        elif node.op_type == "GlobalAveragePool":
            return held == frozenset(range(2, len(first.dims))) and first not in self.shares
        else:
            self._kept(node, 0)
        return False

    def _standardised(self, node: Node) -> None:
        """Note the axes of a mean; weights of positions must lie along a single one."""
        rank = len(node.outputs[0].dims)
        axes = frozenset(int(axis) % rank for axis in _plain(node.attributes["axes"]))
        weights = (
            None if len(node.inputs) < 2 or node.inputs[1] is None else self.graph.initializers.get(node.inputs[1])
        )
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            (axis,) = axes if len(axes) == 1 else (None,)
            tensor = node.outputs[0]
            if weights is None or axis is None or weights.size != tensor.dims[axis]:
                return
            self.shares[tensor] = np.asarray(weights, np.float64).reshape(-1)
        self.axes[node.outputs[0]] = axes

    def _kept(self, node: Node, slot: int) -> None:
        """Note what stays so: multiples along other axes, sums of two of a kind, other orders of axes, other shapes."""
        made, tensor = node.outputs[0], node.inputs[slot] if slot < len(node.inputs) else None
        held = None if tensor is None else self.axes.get(tensor)
        if tensor is None or held is None:
            return
        rank = len(made.dims)
        if node.op_type in ("Identity", "Neg"):
            self._note(made, tensor, held)
        elif node.op_type in ("Mul", "Div") and len(tensor.dims) == rank:
            other = node.inputs[1 - slot]
            if other is not None and other.shape is not None and tensor.dims == made.dims:
                sizes = (1,) * (rank - len(other.dims)) + other.dims
                if all(sizes[axis] == 1 for axis in held):
                    self._note(made, tensor, held)
        elif node.op_type in ("Add", "Sub") and len(node.inputs) == 2:
            other = node.inputs[1 - slot]
            alike = other is not None and self.axes.get(other) == held and other.shape == tensor.shape
            if alike and tensor not in self.shares and other not in self.shares:
                self._note(made, tensor, held)
        elif node.op_type == "Transpose":
            order = _plain(node.attributes.get("perm", tuple(reversed(range(rank)))))
            self._note(made, tensor, frozenset(place for place, axis in enumerate(order) if axis in held))
        elif node.op_type == "Reshape":
            moved = {axis: _same_axis(tensor.dims, made.dims, axis) for axis in held}
            if None not in moved.values():
                self._note(made, tensor, frozenset(axis for axis in moved.values() if axis is not None))

    def _note(self, made: Tensor, tensor: Tensor, axes: frozenset[int]) -> None:
        self.axes[made] = axes
        if tensor in self.shares:
            self.shares[made] = self.shares[tensor]

    def _reduced(self, node: Node, first: Tensor) -> frozenset[int] | None:
        given: Any = node.attributes.get("axes")
        if given is None and len(node.inputs) > 1 and node.inputs[1] is not None:
            given = self.graph.initializers.get(node.inputs[1])
        if given is None:
            return None
        return frozenset(int(axis) % len(first.dims) for axis in np.atleast_1d(_plain(given)))

    def _renumbered(self, node: Node, first: Tensor, held: frozenset[int], places: frozenset[int]) -> None:
        gone = places if len(node.outputs[0].dims) < len(first.dims) else frozenset()
        self._note(node.outputs[0], first, frozenset(axis - sum(place < axis for place in gone) for axis in held))

    def _cancels(self, node: Node, held: frozenset[int]) -> bool:
        """Whether every column of the second operand weighs the entries as the sum does that is 0."""
        first, second = node.inputs[0], node.inputs[1]
        assert first is not None
        if second is None or held != {len(first.dims) - 1} or second.shape is None or len(second.dims) != 2:
            return False
        numbers = self._known(second)
        if numbers is None:
            return False
        shares = self.shares.get(first, np.full(len(numbers), 1.0 / len(numbers)))[:, None]
        level = numbers.sum(axis=0, keepdims=True) * shares / shares.sum()
        return bool((np.abs(numbers - level) <= _SAME * np.abs(numbers).max(initial=0.0)).all())

    def _known(self, tensor: Tensor) -> Array | None:
        stored: Mapping[Tensor, Array] = self.graph.initializers
        if tensor in stored:
            return np.asarray(stored[tensor], np.float64)
        make = self.graph.derived.get(tensor)
        return None if make is None else np.asarray(make(np.ones(1)), np.float64).reshape(tensor.dims)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, ir.Attr) else value


def _same_axis(before: Dims, after: Dims, axis: int) -> int | None:
    """Return where an axis of more than one index lies after a reshape that leaves it alone, else None."""
    lead = math.prod(before[:axis])
    for place, size in enumerate(after):
        if size == before[axis] > 1 and math.prod(after[:place]) == lead:
            return place
    return None
