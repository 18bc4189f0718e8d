"""Finds the node in which a signal is lost, by running a few samples with every value of the graph as an output."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.graph.passes.constant_weights import REPLACES, WEIGHT_INPUT
from epsinas_onnx.graph.traversal import StaticValues, operands
from epsinas_onnx.lump.lower import CutOff

Array = npt.NDArray[Any]
Run = Callable[[Sequence[str]], Mapping[str, Array]]
"""Runs the traced graph on samples of its own and returns the values that are named."""

_CHUNK_BYTES = 2**27  # fetched at a time, so that the activations of a deep network never lie in memory together
_UNKNOWN_BYTES = 2**24  # counted for a value whose shape inference does not know
_SMALL = 4096  # constants up to this size are read to see whether they are 0


class LostSignal(Protocol):
    """Where a signal ends, as a sentence says it."""

    @property
    def name(self) -> str:
        """Return the name of the node in the user's graph."""

    @property
    def place(self) -> str:
        """Return how the sentence refers to the node."""

    @property
    def why(self) -> str:
        """Return the end of a sentence that begins with the place."""

    @property
    def advice(self) -> str:
        """Return what a user could do about it, as the end of the sentence, or nothing."""


@dataclass(frozen=True)
class SignalLoss:
    """Where a signal ends: the node, its operator, the largest magnitude that goes in and that comes out."""

    node: ir.Node
    largest_in: float
    largest_out: float

    @property
    def name(self) -> str:
        """Return the name of the node in the user's graph."""
        return str(self.node.name)

    @property
    def cuts(self) -> bool:
        """Whether the node makes one value of everything below a bound."""
        return self.node.op_type in ("Relu", "Clip", "ThresholdedRelu")

    @property
    def why(self) -> str:
        """Return the end of a sentence that begins with the place."""
        return "gives every sample the same values"

    @property
    def advice(self) -> str:
        """Return what a user could do about it, as the end of the sentence, or nothing."""
        return advice(self.node)

    @property
    def place(self) -> str:
        """Return how a sentence refers to the node."""
        return f"node {self.node.name!r} ({self.node.meta.get(REPLACES, self.node.op_type)})"


@dataclass(frozen=True)
class _Seen:
    """One value over the traced samples: whether it carries the signal, is finite, and how large it is."""

    depends: bool
    finite: bool
    largest: float


class Tracer:
    """Traces a graph whose float values can be fetched by name.

    exposed: bytes of each such value, in graph order.
    """

    def __init__(self, model: ir.Model, outputs: Sequence[str], exposed: Mapping[str, int]) -> None:
        self._graph = model.graph
        self._outputs = list(outputs)
        self._exposed = exposed
        self._values = {str(v.name): v for node in model.graph for v in node.outputs if v.name}

    def lost(self, plain: Run, nudged: Run, rolled: Run, inputs: Mapping[str, float]) -> SignalLoss | None:
        """Return the node behind which nothing that reaches the output depends on the input any more.

        plain: runs a few samples. nudged: the same with other last bits. rolled: the same samples in another order.
        inputs: the largest magnitude of each graph input. A value depends on the input when it changes with the order
        of the samples by more than with the last bits. None where the output still depends on the input, as it may
        with fewer samples than were scored.
        """
        seen = {name: _Seen(True, True, largest) for name, largest in inputs.items()}
        for names in self.chunks():
            first, bits, other = plain(names), nudged(names), rolled(names)
            for name in names:
                depends, finite = compare(first[name], bits[name], other[name])
                seen[name] = _Seen(depends, finite, _largest(first[name]))
        return self._cut(seen)

    def exploded(self, run: Run) -> SignalLoss | None:
        """Return the first node whose operands are all finite and whose output is not; None where there is none."""
        seen = {}
        for names in self.chunks():
            for name, array in run(names).items():
                seen[name] = _Seen(True, bool(np.isfinite(array).all()), _largest(array))
        for node in self._graph:
            bad = [v for v in node.outputs if v.name in seen and not seen[str(v.name)].finite]
            if bad and all(seen[str(v.name)].finite for v in operands(node) if v.name in seen):
                return SignalLoss(_named(node), _largest_before(node, seen), seen[str(bad[0].name)].largest)
        return None

    def chunks(self) -> Iterable[list[str]]:
        """Yield names that are fetched at a time, in graph order."""
        chunk: list[str] = []
        size = 0
        for name, bytes_ in self._exposed.items():
            size += bytes_
            chunk.append(name)
            if size > _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _carries(self, value: ir.Value, seen: Mapping[str, _Seen], known: dict[ir.Value, bool]) -> bool:
        """Whether a value depends on the input; one that was not fetched does when something before it does.

        known: what has been found out so far.
        """
        pending = [value]
        while pending:
            current = pending[-1]
            if current in known:
                pending.pop()
            elif current.name in seen:
                known[current] = seen[str(current.name)].depends
            else:
                producer = current.producer()
                read = [] if producer is None else list(operands(producer))
                new = [operand for operand in read if operand not in known]
                if new:
                    pending += new
                else:
                    known[current] = any(known[operand] for operand in read)
        return known[value]

    def _cut(self, seen: Mapping[str, _Seen]) -> SignalLoss | None:
        """Walk back from the outputs through dead values, and return the first node that is fed by a live one."""
        pending = [self._values[name] for name in self._outputs if name in self._values]
        known: dict[ir.Value, bool] = {}
        if any(self._carries(value, seen, known) for value in pending):
            return None
        visited = set(pending)
        frontier: list[ir.Node] = []
        while pending:
            producer = pending.pop().producer()
            if producer is None:
                continue
            read = list(operands(producer))
            if any(self._carries(value, seen, known) for value in read):
                frontier.append(producer)
            for value in read:
                if value not in visited and not self._carries(value, seen, known):
                    visited.add(value)
                    pending.append(value)
        order = {node: index for index, node in enumerate(self._graph)}
        frontier.sort(key=lambda node: (multiplies_by_zero(node), order.get(node, -1)))
        if not frontier:
            return None
        node = frontier[0]
        return SignalLoss(_named(node), _largest_before(node, seen), _largest_of(node.outputs, seen))


def expose(model: ir.Model, outputs: Sequence[str]) -> dict[str, int]:
    """Make every float value of the main graph that depends on the input an output, in place; return their bytes."""
    static = StaticValues.of(model)
    values = [
        value
        for node in model.graph
        for value in node.outputs
        if value.name and not value.name.startswith(PREFIX) and value not in static and _is_float(value)
    ]
    present = {value.name for value in model.graph.outputs}
    model.graph.outputs.extend([value for value in values if value.name not in present])
    named = {str(value.name): value for value in (*model.graph.outputs, *values)}
    return {name: _bytes(named[name]) for name in dict.fromkeys([*outputs, *(str(value.name) for value in values)])}


def unreachable(model: ir.Model, outputs: Sequence[str]) -> CutOff | None:
    """Return what cuts the outputs off from the inputs; None where a path leads there.

    A path ends at an operator that gives no signal on (a shape) and at a multiplication by a stored 0.
    """
    reached: set[ir.Value] = {value for value in model.graph.inputs if value.name != WEIGHT_INPUT}
    last_zero: ir.Node | None = None
    for node in model.graph:
        if not any(value in reached for value in operands(node)):
            continue
        if multiplies_by_zero(node):
            last_zero = node
        elif node.op_type not in ("Shape", "Size"):
            reached.update(node.outputs)
    if any(value.name in outputs for value in reached):
        return None
    if last_zero is not None:
        why = f"every path from the input ends in a multiplication by 0, the last one in node {last_zero.name!r}"
        return CutOff(why, last_zero)
    return CutOff("no path leads from an input to the output", None)


def multiplies_by_zero(node: ir.Node) -> bool:
    """Return whether a node is a Mul with a stored operand that is 0 everywhere."""
    if node.op_type != "Mul" or node.domain != "":
        return False
    for value in node.inputs:
        tensor = None if value is None else ir.convenience.get_const_tensor(value)
        if tensor is None or not 0 < tensor.size <= _SMALL:
            continue
        with contextlib.suppress(ModelError):  # it may be a weight, whose data file need not be there
            array = tensor.numpy()
            if array.size == tensor.size and not array.any():
                return True
    return False


def longest_path(model: ir.Model, outputs: Sequence[str]) -> int:
    """Return how many nodes lie on the longest path to the outputs: how often a signal is rounded."""
    depth: dict[ir.Value, int] = {}
    for node in model.graph:
        level = 0
        for value in operands(node):
            level = max(level, depth.get(value, 0))
        for output in node.outputs:
            depth[output] = level + 1
    return max((level for value, level in depth.items() if value.name in outputs), default=0)


def _named(node: ir.Node) -> ir.Node:
    """Return the user's node behind one that the rewriter added."""
    while node.name and node.name.startswith(PREFIX):
        uses = [use.node for output in node.outputs for use in output.uses()]
        if not uses:
            break
        node = uses[0]
    return node


def compare(plain: Array, bits: Array, other: Array) -> tuple[bool, bool]:
    """Return whether a value depends on the input, and whether it is finite; the arguments are as of `Tracer.lost`."""
    finite = bool(np.isfinite(plain).all())
    if not plain.shape == bits.shape == other.shape:  # how many entries there are depends on the values
        return True, finite
    with np.errstate(all="ignore"):
        moved, rounding = _largest(plain - other), _largest(plain - bits)
    return moved > 4 * rounding, finite


def _largest(array: Array) -> float:
    """Return the largest magnitude, NaN left aside."""
    if not array.size:
        return 0.0
    largest = max(abs(float(array.max())), abs(float(array.min())))
    return float(np.nanmax(np.abs(array), initial=0)) if math.isnan(largest) else largest


def _largest_before(node: ir.Node, seen: Mapping[str, _Seen]) -> float:
    """Return the largest magnitude among the user's values in front of a node, past nodes that the rewriter added."""
    largest = 0.0
    pending, visited = list(operands(node)), set(operands(node))
    while pending:
        value = pending.pop()
        producer = value.producer()
        if value.name in seen:
            largest = max(largest, seen[str(value.name)].largest)
        elif producer is not None:
            new = [operand for operand in operands(producer) if operand not in visited]
            visited.update(new)
            pending += new
    return largest


def _largest_of(values: Iterable[ir.Value], seen: Mapping[str, _Seen]) -> float:
    return max((seen[str(value.name)].largest for value in values if value.name in seen), default=0.0)


def _is_float(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_floating_point() and isinstance(value.type, ir.TensorType)


def _bytes(value: ir.Value) -> int:
    shape = known_shape(value)
    return _UNKNOWN_BYTES if shape is None else 4 * math.prod(shape)


def advice(node: ir.Node | None) -> str:
    """Name the value in front of a softmax or another head that is the same for identical classes."""
    heads = ("Softmax", "LogSoftmax", "Hardmax", "ArgMax", "TopK")
    if node is None or node.op_type not in heads or node.inputs[0] is None:
        return ""
    before = node.inputs[0].name
    return f"; identical classes do that, so score what comes before with --output-name {before!r}"
