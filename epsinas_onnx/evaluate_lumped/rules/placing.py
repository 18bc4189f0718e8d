"""Rules of what puts entries among others: padding, scattering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Operands, Run, as_formed, formed, linear
from epsinas_onnx.evaluate_lumped.kernels import layout
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, depends, spread


def padded(call: Call) -> Run:
    """Pads of a number join the base; those taken from the image are linear."""
    kernel = layout.pad(call)
    if str(call.attribute("mode", "constant")) != "constant":
        return linear(layout.pad)(call)

    def run(operands: Operands) -> Sequence[Operand | None]:
        data, *rest = operands
        if isinstance(data, Pair) or any(depends(operand) for operand in rest):
            return as_formed(layout.pad)(call)(operands)
        assert data is not None
        plain = [formed(operand) for operand in rest]
        zero = [*plain[:1], np.zeros(()), *plain[2:]] if plain else []
        parts = [
            part
            if part is None
            else part.become(kernel(spread(part, data.shape), *zero) if zero else kernel(spread(part, data.shape)))
            for part in (data.base, data.deviation, data.total)
        ]
        level = kernel(np.broadcast_to(np.zeros(()), data.shape), *plain)
        made = Value(level.shape, *parts)
        return [algebra.add(made, Value(level.shape, Scaled(level), None)) if level.any() else made]

    return run
