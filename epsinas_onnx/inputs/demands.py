"""Finds what is asked of each integer input, by following it to the operators that read it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.analysis.caches import Cache, Decoding, decoding
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import model_inputs
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import body_outputs, node_bodies
from epsinas_onnx.inputs.operands import Demand, asked
from epsinas_onnx.inputs.vocabulary import token_bound

_LARGEST = 2**24
"""Entries of the largest tensor that is read to find by how much it moves others."""
_MOVES = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand", "Tile", "Split"}
)
"""Operators that move the entries of input 0 about."""
_JOINS = frozenset({"Concat", "Where", "Max", "Min"})
"""Operators that choose among the entries of all inputs."""


def demands(model: ir.Model, specs: Sequence[InputSpec], caches: Sequence[Cache]) -> dict[str, Demand]:
    """Return what is asked of every input, by name; shapes must be known as far as they can be.

    caches: those that were found while the model had all of its outputs.
    """
    inputs = model_inputs(model)
    if not any(_holds_integers(value) for value in inputs):
        return {str(value.name): Demand() for value in inputs}
    state = decoding(specs, caches)
    behind = body_outputs(model)
    return {str(value.name): demand(value, state, behind) for value in inputs}


def _holds_integers(value: ir.Value) -> bool:
    return value.dtype is not None and value.dtype.is_integer()


def demand(value: ir.Value, state: Decoding, behind: Mapping[ir.Value, Iterable[ir.Value]]) -> Demand:
    """Return what is asked of one input. behind: where the outputs of bodies go on."""
    found = Demand(tokens=token_bound(value), value=state.seen)
    if not _holds_integers(value):
        return found
    pending = [(value, _WHOLE)]
    seen = {value}
    while pending:
        current, way = pending.pop(0)  # what comes first in the graph decides where operators disagree
        for use in current.uses():
            asks = asked(use.node, use.idx, state)
            if asks is not None and (way.alone or not asks.kind):
                found = _both(found, _before(asks, way))
            for reached, step in _reached(use.node, use.idx):
                if reached not in seen:
                    seen.add(reached)
                    pending.append((reached, way.then(step)))
        new = [each for each in behind.get(current, ()) if each not in seen]
        seen.update(new)
        pending += [(each, way) for each in new]
    return found


@dataclass(frozen=True)
class _Way:
    """How entries came to where they are: moved up by so much at least and at most, and put beside others or alone."""

    least: int = 0
    most: int = 0
    alone: bool = True

    def then(self, step: _Way) -> _Way:
        return _Way(self.least + step.least, self.most + step.most, self.alone and step.alone)


_WHOLE = _Way()


def _reached(node: ir.Node, slot: int) -> Iterator[tuple[ir.Value, _Way]]:
    """Yield where the entries of an operand are found again, and how they got there."""
    if node.domain != "":
        return
    if node.op_type in _MOVES and slot == 0:
        yield from ((output, _WHOLE) for output in node.outputs)
    elif node.op_type in _JOINS and (node.op_type != "Where" or slot):
        yield node.outputs[0], _Way(alone=False)
    elif node.op_type == "Add" or (node.op_type == "Sub" and slot == 0):
        shift = _stored(node.inputs[1 - slot])
        if shift is not None:
            signed = shift if node.op_type == "Add" else -shift
            yield node.outputs[0], _Way(int(signed.min()), int(signed.max()))
    elif node.op_type in ("Loop", "Scan"):
        yield from ((body.inputs[slot], _WHOLE) for body in node_bodies(node) if slot < len(body.inputs))


def _stored(value: ir.Value | None) -> np.ndarray | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return None if tensor is None or not tensor.size or tensor.dtype.is_floating_point() else read(tensor, _LARGEST)


def _before(asks: Demand, way: _Way) -> Demand:
    """Return what is asked of entries before they were moved."""
    if asks.kind:
        return replace(asks, value=asks.value - way.least)
    low = None if asks.low is None else asks.low - way.least
    return replace(asks, low=low, high=None if asks.high is None else asks.high - way.most)


def _both(first: Demand, second: Demand) -> Demand:
    lows = [each.low for each in (first, second) if each.low is not None]
    highs = [each.high for each in (first, second) if each.high is not None]
    decides = second if second.kind and not first.kind else first
    return Demand(first.tokens, max(lows, default=None), min(highs, default=None), decides.kind, decides.value)
