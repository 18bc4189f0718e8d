"""Recurrent layers whose steps do not matter to each other: their functions are taken of all steps at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from epsinas_onnx.evaluate_lumped import algebra, smooth
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.steps import Done, Steps
from epsinas_onnx.evaluate_lumped.value import Value

_FUNCTIONS = {"Sigmoid": smooth.SIGMOID, "Tanh": smooth.TANH}
_DROPPED = 2**11
"""A sum drops a term that is smaller than its largest by this power of two, whatever their scales are."""
_EVEN = 2.0**-100
"""Steps of which none is smaller than this share of another are held by one scale as well as by one each."""
_STEEP = 5.0
"""Up to two to this power the functions have slopes that leave steps even."""


class Arithmetic(Protocol):
    """What is needed to compute with values."""

    def matmul(self, first: Value, second: Value) -> Value:
        """Return the matrix product."""

    def take(self, value: Value, index: tuple[Any, ...]) -> Value:
        """Return an index or a slice."""

    def stack(self, rows: Sequence[Value]) -> Value:
        """Return one behind the other along a new first axis."""


def all_steps(a: Arithmetic, steps: Steps) -> Done[Value] | None:
    """Return what all steps give, where none changes a bit of what goes into the functions of the next one.

    So it is with constants near 0: what functions give, 1 at most, times a weight is nothing beside what comes in.
    None where some step may matter, and of a GRU, whose gates are multiplied in front of a function.
    """
    products, whole = steps.products, steps.recurrence.whole()
    base = products.base
    if steps.kind == "GRU" or whole is None or whole.log2 > -_DROPPED or not set(steps.functions) <= set(_FUNCTIONS):
        return None
    if not _is_even(products) or (base is not None and base.log2 > _STEEP):
        return None
    f, *more = (_FUNCTIONS[name] for name in steps.functions)
    c = steps.cell
    if steps.kind == "RNN":
        outputs = f(products)
    else:
        g, out = more
        gates = f(_gates(a, products, steps.size, 0, 3))
        i, o, forget = (_gates(a, gates, steps.size, k, k + 1) for k in range(3))
        new = algebra.multiply(i, g(_gates(a, products, steps.size, 3, 4)))
        cells: list[Any] = [None] * len(steps.order)
        for place in steps.order:
            c = algebra.add(algebra.multiply(a.take(forget, (place,)), c), a.take(new, (place,)))
            cells[place] = c
        every = a.stack(cells)
        if not _is_even(every):
            return None
        outputs = algebra.multiply(o, out(every))
    if not _drops(products, [a.matmul(outputs, steps.recurrence), a.matmul(steps.hidden, steps.recurrence)]):
        return None
    rows = [a.take(outputs, (place,)) for place in range(len(steps.order))]
    return Done(rows, rows[steps.order[-1]], c)


def _gates(a: Arithmetic, value: Value, size: int, first: int, last: int) -> Value:
    return a.take(value, (Ellipsis, slice(first * size, last * size)))


def _is_even(value: Value) -> bool:
    """Whether one scale suits what every step has, and how samples deviate in it."""
    if value.total is not None:
        return False
    sizes = [_sizes(part) for part in (value.base, value.deviation) if part is not None]
    return all(each.min() > _EVEN * each.max() for each in sizes)


def _sizes(part: Scaled) -> Any:
    """Return the largest magnitude in each step, the scale aside."""
    return np.abs(part.array).reshape(len(part.array), -1).max(axis=1, initial=0.0)


def _drops(sums: Value, terms: Sequence[Value]) -> bool:
    """Whether every term is dropped beside the sums of every step."""
    return all(
        _drops_part(own, [part for part in parts if part is not None])
        for own, parts in (
            (sums.base, [term.base for term in terms]), (sums.deviation, [term.deviation for term in terms])
        )
    )  # fmt: skip


def _drops_part(sums: Scaled | None, terms: Sequence[Scaled]) -> bool:
    largest = max((term.log2 for term in terms), default=-math.inf)
    if largest == -math.inf or sums is None:
        return largest == -math.inf
    least = float(_sizes(sums).min())
    return math.log2(least) + math.log2(sums.mantissa) + sums.exponent > largest + _DROPPED
