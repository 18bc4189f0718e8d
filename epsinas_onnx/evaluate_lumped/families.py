"""Owns how families of operators act on base and deviation, given what the operator computes on plain arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, scaled
from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.kernels.layout import Kernel
from epsinas_onnx.evaluate_lumped.scaled import Array, Scaled
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Shape, Value, depends, fixed, given, spread
from epsinas_onnx.inputs.generate import unstretched

Operands: TypeAlias = Sequence[Operand | None]
Run: TypeAlias = Callable[[Operands], Sequence[Operand | None]]
Rule: TypeAlias = Callable[[Call], Run]
Maker: TypeAlias = Callable[[Call], Kernel]
Free: TypeAlias = Callable[[int, int], bool]
"""Whether an operator takes the indices of an axis one by one, so that one index may stand for all: axis, rank."""


def none_free(axis: int, rank: int) -> bool:
    """No axis may be stood in for."""
    return False


def first_free(axis: int, rank: int) -> bool:
    """The first one may."""
    return axis == 0


def maps_free(axis: int, rank: int) -> bool:
    """The first two may."""
    return axis < 2


def all_free(axis: int, rank: int) -> bool:
    """Every axis may."""
    return True


def opened(part: Scaled, shape: Shape, free: Free) -> Array:
    """Return an array with the full size along all axes that are not free."""
    array = part.array
    if array.shape == shape:
        return array
    rank = len(shape)
    return np.broadcast_to(
        array,
        tuple(
            have if free(axis, rank) else want for axis, (have, want) in enumerate(zip(array.shape, shape, strict=True))
        ),
    )


def formed(value: Operand | None, reference: bool = False) -> Array | None:
    """Return what an operand holds as a plain array, for the samples or for the reference."""
    if value is None:
        return None
    if isinstance(value, Pair):
        return value.reference if reference else value.actual
    return value.formed_base() if reference else value.formed()


def as_formed(make: Maker) -> Rule:
    """Form the operands, for the samples and for the reference, and see what each gives."""

    def rule(call: Call) -> Run:
        kernel = make(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            actual = _tuple(kernel(*(formed(operand) for operand in operands)))
            if not any(depends(operand) for operand in operands):
                return [fixed(np.asarray(array)) for array in actual]
            reference = _tuple(kernel(*(formed(operand, True) for operand in operands)))
            return [given(np.asarray(r), np.asarray(a)) for r, a in zip(reference, actual, strict=True)]

        return run

    return rule


def linear(make: Maker, free: Free = none_free) -> Rule:
    """Linear in the first operand, with whatever the others say: on base and deviation alike."""

    def rule(call: Call) -> Run:
        kernel, ready = make(call), _small_stored(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            data = operands[0]
            if isinstance(data, Pair):
                return _pairs(kernel, operands)
            assert data is not None
            rest = ready
            if rest is None:
                if any(depends(operand) for operand in operands[1:]):
                    here, there = ([formed(o, side) for o in operands[1:]] for side in (False, True))
                    if call.op_type == "Gather":  # the indices' axes become axes of the result: one may stand for all
                        there = [array if array is None else unstretched(array) for array in there]
                    return [moved_apart(kernel, data, here, there)]
                rest = [formed(operand) for operand in operands[1:]]
            part = data.deviation
            if data.base is None and data.total is None and part is not None and part.array.shape == data.shape:
                made = kernel(part.array, *rest)
                return [Value(one.shape, None, part.become(one)) for one in _tuple(made)]
            return through(lambda array: kernel(array, *rest), data, free)

        return run

    return rule


_SMALL = 2**14
"""Bytes of a stored operand that is made ready once; a larger one in float64 would take more memory than time."""


def _small_stored(call: Call) -> list[Array | None] | None:
    """Return all operands but the first where they are stored and small, or left out; None where some are not."""
    found: list[Array | None] = []
    for slot in range(1, len(call.node.inputs)):
        array = call.constant(slot)
        if (array is None and call.has(slot)) or (array is not None and array.nbytes > _SMALL):
            return None
        found.append(None if array is None else formed(fixed(array)))
    return found


def through(kernel: Kernel, data: Value, free: Free) -> list[Value]:
    """Return what a linear operator makes of base and deviation alike."""
    parts = (data.base, data.deviation, data.total)
    made: list[tuple[Scaled, ...] | None] = []
    for part in parts:
        if part is None:
            made.append(None)
            continue
        arrays = _tuple(kernel(opened(part, data.shape, free)))
        made.append(tuple(part.become(array) for array in arrays))
    pairs = zip(parts, made, strict=True)
    whole = next((after for part, after in pairs if part is not None and part.array.shape == data.shape), None)
    if whole is not None:
        shapes = [part.array.shape for part in whole]
    else:
        shapes = [array.shape for array in _tuple(kernel(np.broadcast_to(np.zeros(()), data.shape)))]
    return [
        Value(shape, *(None if parts is None else parts[index] for parts in made))
        for index, shape in enumerate(shapes)
    ]  # fmt: skip


def _pairs(kernel: Kernel, operands: Operands) -> list[Operand | None]:
    actual = _tuple(kernel(*(formed(operand) for operand in operands)))
    if not any(depends(operand) for operand in operands):
        return [fixed(np.asarray(array)) for array in actual]
    reference = _tuple(kernel(*(formed(operand, True) for operand in operands)))
    return [Pair(np.asarray(r), np.asarray(a)) for r, a in zip(reference, actual, strict=True)]


def moved_apart(kernel: Kernel, data: Value, here: Sequence[Any], there: Sequence[Any]) -> Value:
    """Return what an operator makes that is linear in its first operand, where others differ between samples.

    here: those others, for the samples; there: for the reference. The deviation is that of the first operand, and by
    how much the bases differ.
    """
    base, deviation, moved = None, None, None
    shape = kernel(np.broadcast_to(np.zeros(()), data.shape), *here).shape
    if data.base is not None:
        array = spread(data.base, data.shape)
        base = data.base.become(kernel(array, *there))
        moved = scaled.add(data.base.become(kernel(array, *here)), base, True)
    if data.deviation is not None:
        deviation = data.deviation.become(kernel(spread(data.deviation, data.shape), *here))
    if moved is not None:
        deviation = moved if deviation is None else scaled.add(deviation, moved)
    return Value(shape, base, deviation)


def chosen(kernel: Kernel, data: Value, indices: Pair) -> Value:
    """Return the entries that indices name."""
    if indices.depends:
        return moved_apart(kernel, data, [indices.actual], [indices.reference])
    return through(lambda array: kernel(array, indices.actual), data, none_free)[0]


def stacked_free(axis: int, rank: int) -> bool:
    """All but the last two may, as those of stacked matrices."""
    return axis < rank - 2


def bilinear(make: Maker, bias: int | None = None, free: Free = none_free, beside: Free | None = None) -> Rule:
    """Linear in each of two operands. bias: the slot of what is added.

    free: of the first, by a fixed second. beside: of the second, where its axes broadcast with those of the first.
    """

    def rule(call: Call) -> Run:
        kernel = make(call)
        alpha = float(call.attribute("alpha", 1.0)) if call.op_type == "Gemm" else 1.0
        beta = float(call.attribute("beta", 1.0)) if call.op_type == "Gemm" else 1.0
        shapes: dict[tuple[Shape, Shape], Shape] = {}
        stored = call.constant(1)
        if stored is not None and stored.any() and not call.has(2) and alpha == 1.0 and stored.dtype.kind == "f":
            return linear(make, free)(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            first, second = operands[0], operands[1]
            if not isinstance(first, Value) or not isinstance(second, Value):
                return _pairs(kernel, operands)
            keep = free if second.deviation is None or beside is not None else none_free

            def times(one: Scaled, other: Scaled) -> Scaled:
                one, other = one.settled(), other.settled()
                mantissa, exponent = math.frexp(one.mantissa * other.mantissa)
                array = kernel(opened(one, first.shape, keep), opened(other, second.shape, beside or none_free))
                return Scaled(array, mantissa, one.exponent + other.exponent + exponent, max(one.age, other.age) + 2)

            made = algebra.product(times, first, second, ())
            key = first.shape, second.shape
            if key not in shapes:
                shapes[key] = kernel(np.zeros(first.shape), np.zeros(second.shape)).shape
            made.shape = shapes[key]
            made = made if alpha == 1.0 else algebra.multiply(made, algebra.number(alpha))
            addend = operands[bias] if bias is not None and len(operands) > bias else None
            if isinstance(addend, Value):
                if call.op_type.startswith("Conv"):
                    column = (1, -1, *(1,) * (len(made.shape) - 2))
                    addend = algebra.mapped(
                        addend, lambda p: p.become(p.array.reshape(column), 0), (1, *addend.shape, *column[2:])
                    )
                addend = addend if beta == 1.0 else algebra.multiply(addend, algebra.number(beta))
                made = algebra.add(made, addend)
            return [made]

        return run

    return rule


def values(function: Callable[..., Value]) -> Rule:
    """Return a rule that is a function of values; integers are computed as they are by `as_formed`."""

    def rule(call: Call) -> Run:
        return lambda operands: [function(*operands)]

    return rule


def numbers(function: Callable[..., Value], make: Maker) -> Rule:
    """Return a rule for operators of floats and integers alike: a function of values, and a kernel for the rest."""

    def rule(call: Call) -> Run:
        kernel = make(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            for operand in operands:
                if not isinstance(operand, Value):
                    return _pairs(kernel, operands)
            return [function(*operands)]

        return run

    return rule


def several(function: Callable[[Value, Value], Value], make: Maker) -> Rule:
    """Return a rule for any number of operands, taken two at a time."""

    def all_of(*operands: Value) -> Value:
        made = operands[0]
        for one in operands[1:]:
            made = function(made, one)
        return made

    return numbers(all_of, make)


def reshaped(make: Maker) -> Rule:
    """Return the rule of what changes the shape alone: axes that one index stands for stay so where they can."""

    def rule(call: Call) -> Run:
        kernel = make(call)

        def run(operands: Operands) -> Sequence[Operand | None]:
            data = operands[0]
            if not isinstance(data, Value):
                return _pairs(kernel, operands)
            rest = [formed(operand) for operand in operands[1:]]
            shape = kernel(np.broadcast_to(np.zeros(()), data.shape), *rest).shape
            return [algebra.mapped(data, lambda part: part.become(folded(part, data.shape, shape), 0), shape)]

        return run

    return rule


def folded(part: Scaled, shape: Shape, wanted: Shape) -> Array:
    """Return a part of `shape` as one of the shape wanted, with one index for all of an axis where it had that."""
    array = part.array
    if array.shape == shape:
        return array.reshape(wanted)
    compact: list[int] = []
    old, new = 0, 0
    while old < len(shape) or new < len(wanted):
        start, first = old, new
        left = right = 1
        while True:
            if left == right and old > start and new > first and left != 1:
                break
            if left <= right and old < len(shape):
                left *= shape[old]
                old += 1
            elif new < len(wanted):
                right *= wanted[new]
                new += 1
            elif old < len(shape):
                left *= shape[old]
                old += 1
            else:
                break
        have = array.shape[start:old]
        if all(size == 1 for size in have):
            compact += [1] * (new - first)
        elif have == shape[start:old]:
            compact += wanted[first:new]
        else:
            return np.broadcast_to(array, shape).reshape(wanted)
    return array.reshape(compact)


def joined(call: Call) -> Run:
    """Concat: parts of all operands on the largest of their scales."""
    axis = int(call.attribute("axis", 0))

    def run(operands: Operands) -> Sequence[Operand | None]:
        if not all(isinstance(operand, Value) for operand in operands):
            return _pairs(lambda *arrays: np.concatenate(arrays, axis), operands)
        floats = [operand for operand in operands if isinstance(operand, Value)]
        place = axis % len(floats[0].shape)
        shape = list(floats[0].shape)
        shape[place] = sum(operand.shape[place] for operand in floats)
        exact = any(operand.total is not None for operand in floats)
        parts = (
            _behind([(operand.base, operand.shape) for operand in floats], place),
            _behind([(operand.deviation, operand.shape) for operand in floats], place),
            _behind([(operand.whole(), operand.shape) for operand in floats], place) if exact else None,
        )
        return [Value(tuple(shape), *parts)]

    return run


def _behind(parts: Sequence[tuple[Scaled | None, Shape]], place: int) -> Scaled | None:
    present = [part.settled() for part, _ in parts if part is not None]
    if not present:
        return None
    largest = max(present, key=lambda part: part.log2)
    arrays = [
        np.zeros(shape) if part is None else np.broadcast_to(part.in_units_of(largest), shape) for part, shape in parts
    ]
    return largest.become(np.concatenate(arrays, place), 0)


def _tuple(made: Any) -> tuple[Any, ...]:
    return tuple(made) if isinstance(made, (tuple, list)) else (made,)
