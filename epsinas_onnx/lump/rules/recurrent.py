"""Rules of recurrent layers: hidden units that start alike stay alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.registry import Operands, Outcome, rule
from epsinas_onnx.lump.reshape import reshaped
from epsinas_onnx.lump.step import Step
from epsinas_onnx.lump.value import Lumped, Tensor

_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@rule("RNN", "GRU", "LSTM")
def recur(context: Context, step: Step, operands: Operands) -> Outcome:
    """h[t] = f(W x[t] + R h[t-1] + B), gate by gate.

    With one constant in W and R every hidden unit gets the same sums of inputs and of hidden units. Units differ only
    where their initial states or biases do: the classes of these are the classes of units, and stay so from step to
    step. The layer is then one of that many units: a weight of W stands for all inputs of a class, one of R for all
    units of a class, so both are multiplied by the sizes.
    """
    x, weight, recurrence, bias, lengths, hidden, cell, peephole = [*operands, *(None,) * 8][:8]
    if x is None or weight is None or recurrence is None or step.integer("layout", 0):
        return None
    if not (weight.is_single and recurrence.is_single) or (peephole is not None and not peephole.zero):
        return None
    directions, gates = weight.shape[0], _GATES[step.node.op_type]
    units = Partition.one(recurrence.shape[2])
    batch = x.axes[1] if lengths is None else Partition.discrete(x.shape[1])
    states = [state for state in (hidden, cell) if state is not None]
    for state in states:
        units, batch = units.join(state.axes[2]), batch.join(state.axes[1])
    if bias is not None and not bias.zero:
        bias = reshaped(context, bias, (directions, 2 * gates, units.size))
        units = units.join(bias.axes[2])
    steps, apart = Partition.discrete(x.shape[0]), Partition.discrete(directions)
    values = [
        context.refine(x, (steps, batch, x.axes[2])),
        _multiplied(context, weight, apart, gates * units.count, x.axes[2]),
        _multiplied(context, recurrence, apart, gates * units.count, units),
        _biases(context, bias, apart, gates, units),
        None if lengths is None else context.refine(lengths, (batch,)),
        *(None if s is None else context.refine(s, (apart, batch, units)) for s in (hidden, cell)),
    ]
    while values[-1] is None:
        values.pop()
    return _run(context, step, values, (steps, apart, batch, units))


def _multiplied(context: Context, weight: Lumped, apart: Partition, rows: int, part: Partition) -> Lumped:
    """Return `[directions, rows, classes]` full of a weight times the size of each class."""
    sizes = np.broadcast_to(part.sizes, (apart.count, rows, part.count)).astype(weight.dtype.numpy())
    parts = (apart, Partition.discrete(rows), Partition.discrete(part.count))
    one = Partition.one(1)
    number = weight.replace(parts=(one, one, one), tensor=context.tensor(weight), known=None)
    return context.mul(Lumped(parts, weight.dtype, context.constant(np.ascontiguousarray(sizes))), number)


def _biases(context: Context, bias: Lumped | None, apart: Partition, gates: int, units: Partition) -> Lumped | None:
    if bias is None or bias.zero:
        return None
    whole = context.refine(bias, (apart, Partition.discrete(2 * gates), units))
    classes = Partition.discrete(2 * gates * units.count)
    return whole.replace(parts=(apart, classes), tensor=context.tensor(whole), known=None)


def _run(context: Context, step: Step, values: Sequence[Lumped | None], parts: tuple[Partition, ...]) -> list[Lumped]:
    steps, apart, batch, units = parts
    forms = [(steps, apart, batch, units), (apart, batch, units), (apart, batch, units)][: len(step.node.outputs)]
    first = values[0]
    assert first is not None
    shapes = [(tuple(part.count for part in form), first.dtype) for form in forms]
    attributes: dict[str, Any] = {**step.attributes(), "hidden_size": units.count}

    def make(tensors: list[Tensor | None]) -> Sequence[Tensor]:
        return context.graph.ops(step.node.op_type, tensors, shapes, attributes=attributes)

    made = context.each(values, make, context.canonical)
    return [context.result(tensor, form, values) for (tensor, _), form in zip(made, forms, strict=True)]
