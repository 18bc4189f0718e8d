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
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, given


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
    """From float to float a value stays as it is, because exact arithmetic does not round."""
    kind = ir.DataType(int(call.attribute("to")))
    plain = as_formed(layout.cast)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        value = operands[0]
        if isinstance(value, Value) and kind.is_floating_point():
            return [value]
        return plain(operands)

    return run
