"""Rules of what puts entries among others: padding and scattering."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.families import Maker, Operands, Rule, Run, as_formed, formed, linear
from epsinas_onnx.evaluate_lumped.kernels import layout, scatter
from epsinas_onnx.evaluate_lumped.scaled import Floats, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Shape, Value, depends, spread


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


def put(make: Maker) -> Rule:
    """Return the rule of what puts updates into data at fixed places: base into base, deviation into deviation."""

    def rule(call: Call) -> Run:
        kernel, plain = make(call), as_formed(make)(call)
        joins = scatter.reduction_of(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            data, places, updates = operands
            if joins not in ("none", "add") or depends(places):
                return plain(operands)
            if not isinstance(data, Value) or not isinstance(updates, Value):
                return plain(operands)
            exact = data.total is not None or updates.total is not None
            pairs = [(data.base, updates.base), (data.deviation, updates.deviation)]
            pairs.append((data.whole(), updates.whole()) if exact else (None, None))
            index = formed(places)
            parts = []
            for pair in pairs:
                own, first, second = _on_one_scale(pair, (data.shape, updates.shape))
                parts.append(None if own is None else own.become(kernel(first, index, second)))
            return [Value(data.shape, *parts)]

        return run

    return rule


def _on_one_scale(
    parts: tuple[Scaled | None, Scaled | None], shapes: tuple[Shape, Shape]
) -> tuple[Scaled | None, Floats, Floats]:
    """Return the part with the larger numbers, and both in its scale and their full shapes; None where both are 0."""
    present = [part.settled() for part in parts if part is not None]
    own = max(present, key=lambda part: part.log2) if present else None
    first, second = (
        np.zeros(shape) if part is None or own is None else np.broadcast_to(part.settled().in_units_of(own), shape)
        for part, shape in zip(parts, shapes, strict=True)
    )
    return own, first, second
