"""Rules of what chooses: conditions, comparisons, signs, casts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.evaluate_lumped import algebra
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Rule, Run, as_formed
from epsinas_onnx.evaluate_lumped.kernels import layout
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, given

_ALL_WHOLE = 2.0**50
"""From here on every number of float64 that a sum has is as good as whole."""


def where(call: Call) -> Run:
    """One value where a condition holds, else another."""

    def run(operands: Operands) -> Sequence[Operand | None]:
        condition, first, second = operands
        assert isinstance(condition, Pair)
        if isinstance(first, Value) and isinstance(second, Value):
            return [algebra.select(condition.reference, condition.actual, first, second)]
        return as_formed(lambda _: np.where)(call)(operands)

    return run


def compared(function: Callable[[Any, Any], Any]) -> Rule:
    """Compare two values by the sign of their difference, however small it is."""

    def rule(call: Call) -> Run:
        plain = as_formed(lambda _: function)(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            first, second = operands
            if not (isinstance(first, Value) and isinstance(second, Value)):
                return plain(operands)
            difference = algebra.subtract(first, second)
            reference, actual = (function(side, 0.0) for side in algebra.position(difference))
            return [Pair(reference, reference if difference.deviation is None else actual)]

        return run

    return rule


def sign(call: Call) -> Run:
    """-1, 0 or 1."""

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if not isinstance(value, Value):
            return as_formed(lambda _: np.sign)(call)(operands)
        return [given(*algebra.position(value))]

    return run


def cast(call: Call) -> Run:
    """From float to float a value stays as it is, because exact arithmetic does not round.

    To integers it is cut off towards 0, to booleans it is whether there is anything, however little that is.
    """
    kind = ir.DataType(int(call.attribute("to")))
    plain = as_formed(layout.cast)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if not isinstance(value, Value):
            return plain(operands)
        if kind.is_floating_point():
            return [value]
        if kind == ir.DataType.BOOL:
            return [given(*(side != 0 for side in algebra.position(value)))]
        if kind.is_integer():
            return [given(*(side.astype(kind.numpy()) for side in _whole_numbers(value, np.trunc)))]
        return plain(operands)

    return run


def rounded(function: Callable[[Any], Any]) -> Rule:
    """Return the rule of what gives whole numbers: `floor`, `ceil` or `rint`."""

    def rule(call: Call) -> Run:
        plain = as_formed(lambda _: function)(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            value = operands[0]
            return [given(*_whole_numbers(value, function))] if isinstance(value, Value) else plain(operands)

        return run

    return rule


def _whole_numbers(value: Value, function: Callable[[Any], Any]) -> tuple[Array, Array]:
    """Return the whole numbers of the reference and of the samples.

    Where a value lies on a step of the function in float64, the sign of what it has beyond that decides.
    """
    base, whole = value.formed_base(), value.formed()
    reference = function(base)
    if value.deviation is None:
        return reference, reference
    near = np.rint(2.0 * whole) / 2.0  # every step is a whole number or lies halfway between two
    beyond = algebra.position(algebra.subtract(value, Value(value.shape, Scaled(near), None)))[1]
    actual = np.where(beyond == 0, function(whole), np.where(beyond > 0, function(near + 0.25), function(near - 0.25)))
    return reference, np.where(np.abs(whole) < _ALL_WHOLE, actual, function(whole))
