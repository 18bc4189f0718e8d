"""Rules of what looks for the largest or smallest along an axis: the order is that of exact arithmetic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Rule, Run, as_formed, chosen, formed
from epsinas_onnx.evaluate_lumped.kernels import order, reduction
from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, given, spread


def placed(value: Value, axis: int, largest: bool) -> tuple[Array, Array]:
    """Return along an axis the indices in order, for the reference and for the samples; of equal ones the first first.

    What is compared is d + (b - b'), b' the best of the base, in units of d: where bases are far apart they decide, and
    where they are equal the deviations do, however small these are.
    """
    sign = -1.0 if largest else 1.0
    base = np.zeros(value.shape) if value.base is None else sign * spread(value.base, value.shape)
    reference = np.argsort(base, axis=axis, kind="stable")
    if value.deviation is None:
        return reference, reference
    deviation = sign * spread(value.deviation, value.shape)
    if value.base is None:
        return reference, np.argsort(deviation, axis=axis, kind="stable")
    apart = value.base.become(base - base.min(axis=axis, keepdims=True)).in_units_of(value.deviation)
    return reference, np.lexsort((deviation, deviation + apart), axis=axis)


def arg_extreme(largest: bool) -> Rule:
    """Return the rule of where an extreme lies along an axis."""

    def rule(call: Call) -> Run:
        axis, keep = int(call.attribute("axis", 0)), reduction.keeps(call)
        last = bool(call.attribute("select_last_index", 0))
        function = np.argmax if largest else np.argmin
        plain = as_formed(reduction.arg(function, function))(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            (value,) = operands
            if not isinstance(value, Value) or last:
                return plain(operands)
            made = [np.take(places, 0 if not keep else [0], axis) for places in placed(value, axis, largest)]
            return [given(*made)]

        return run

    return rule


def hard_max(call: Call) -> Run:
    """1 for the first of the largest along an axis, 0 for the rest."""
    axis = int(call.attribute("axis", -1))
    plain = as_formed(order.hard_max)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        (value,) = operands
        if not isinstance(value, Value) or call.opset < 13:
            return plain(operands)
        made = []
        for places in placed(value, axis, True):
            one = np.zeros(value.shape)
            np.put_along_axis(one, np.take(places, [0], axis), 1.0, axis)
            made.append(one)
        return [given(*made)]

    return run


def top(call: Call) -> Run:
    """The first so many entries in order, and where they were."""
    axis, largest = int(call.attribute("axis", -1)), bool(call.attribute("largest", 1))
    plain = as_formed(order.top)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if not isinstance(value, Value):
            return plain(operands)
        count = np.arange(order.count_of(call, [formed(operand) for operand in operands]))
        indices = given(*(np.take(places, count, axis) for places in placed(value, axis, largest)))
        assert isinstance(indices, Pair)
        return [chosen(lambda array, places: np.take_along_axis(array, places, axis), value, indices), indices]

    return run
