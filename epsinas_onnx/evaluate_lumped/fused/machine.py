"""The compiled program: what each operation does to rows of samples, in float64 with a scale or in float32."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from epsinas_onnx.evaluate_lumped.fused.installed import compiled, summing
from epsinas_onnx.evaluate_lumped.fused.recognise import Code

LINEAR, LEVEL, LARGEST, SCALE, STANDARDISE, RELU = map(int, list(Code)[:6])
CODE, OUT, FIRST, SECOND, ROWS, AT, OUT_AT, FIRST_AT, SECOND_AT, NUMBER, FLAG = range(11)
"""Columns of a table of operations: which, three values, rows of the first of them, where the matrix or the weights
begin, where the rows of the values begin in memory, which number, and whether the second is taken away, or a mean is
one over rows that all weigh 1.
"""
COLUMNS = 11
DONE = -1

_LASTS, _NEAR, _FAR, _WIDE, _NARROW = 8, 40, 300, 2.0**100, 2.0**60  # as in `scaled` and `normalise`
_STRETCH = 256
"""Entries that are added up by themselves first, so that rounding grows with their number less."""
_VAST = 2.0**900
"""Means of squares between this and its reciprocal have lost no digit."""


@compiled
def _power(mantissa: float, exponent: int) -> float:
    """Return `mantissa * 2**exponent`, 0 or infinite beyond float64."""
    if exponent > 2000:
        return math.inf
    if exponent < -2000:
        return 0.0
    half = int(exponent // 2)
    return math.ldexp(math.ldexp(mantissa, half), int(exponent) - half)


@compiled
def _peak(value: Any) -> Any:
    """Return the largest magnitude; NaN where there is one."""
    found = 0.0
    for place in range(len(value)):
        size = abs(value[place])
        if not size <= found:
            found = size
            if size != size:
                return size
    return found


@compiled
def _settle(value: Any, index: int, exponents: Any, ages: Any) -> None:
    """Bring the largest magnitude of a value near 1, if it was not looked at for long and is far from it."""
    if ages[index] < _LASTS:
        return
    ages[index] = 0
    peak = _peak(value)
    if peak == 0 or not peak < math.inf or 1 / _WIDE < peak < _WIDE:
        return
    _, shift = math.frexp(peak)
    for place in range(len(value)):
        value[place] = _power(value[place], -shift)
    exponents[index] += shift


@compiled
def _rows(value: Any, number: int, samples: int, count: int) -> Any:
    """Return so many entries of a value, from the first of a row on."""
    return value[number * samples : number * samples + count]


@compiled
def _row(value: Any, number: int, samples: int) -> Any:
    """Return one row of a value."""
    return _rows(value, number, samples, samples)


@compiled
def _alike(row: int, low: int, count: int, starts: Any, columns: Any, entries: Any) -> int:
    """Return how many rows from one on are as it is, each a column further on; its entries begin at `low`."""
    end = row + 1
    while end < len(starts) - 1 and starts[end + 1] - starts[end] == count:
        begin, shift = starts[end], end - row
        for entry in range(count):
            if columns[begin + entry] - columns[low + entry] != shift or entries[begin + entry] != entries[low + entry]:
                return shift
        end += 1
    return end - row


@compiled
def _linear(out: Any, value: Any, samples: int, starts: Any, columns: Any, entries: Any) -> None:
    """Write sums of rows, each times a number."""
    number = value.dtype.type
    row = 0
    while row < len(starts) - 1:
        low, high = starts[row], starts[row + 1]
        count = high - low
        run = _alike(row, low, count, starts, columns, entries) * samples
        target = _rows(out, row, samples, run)
        row += run // samples
        if count == 0:
            for place in range(run):
                target[place] = 0.0
            continue
        first, x = _rows(value, columns[low], samples, run), number(entries[low])
        if count == 1:
            for place in range(run):
                target[place] = first[place] * x
            continue
        second, y = _rows(value, columns[low + 1], samples, run), number(entries[low + 1])
        if count == 2:
            for place in range(run):
                target[place] = first[place] * x + second[place] * y
            continue
        third, z = _rows(value, columns[low + 2], samples, run), number(entries[low + 2])
        if count == 3:
            for place in range(run):
                target[place] = first[place] * x + second[place] * y + third[place] * z
            continue
        fourth, w = _rows(value, columns[low + 3], samples, run), number(entries[low + 3])
        for place in range(run):
            target[place] = (first[place] * x + second[place] * y) + (third[place] * z + fourth[place] * w)
        for entry in range(low + 4, high):
            other, w = _rows(value, columns[entry], samples, run), number(entries[entry])
            for place in range(run):
                target[place] += other[place] * w


@compiled
def _level(out: Any, value: Any, samples: int, starts: Any, columns: Any, entries: Any) -> None:
    """Write means of rows, which are exactly any of them where all are equal."""
    number = value.dtype.type
    for row in range(len(starts) - 1):
        target = _row(out, row, samples)
        low, high = starts[row], starts[row + 1]
        first = _row(value, columns[low], samples)
        for place in range(samples):
            target[place] = 0.0
        for entry in range(low + 1, high):
            other, x = _row(value, columns[entry], samples), number(entries[entry])
            for place in range(samples):
                target[place] += (other[place] - first[place]) * x
        for place in range(samples):
            target[place] += first[place]


@compiled
def _largest(out: Any, value: Any, samples: int, starts: Any, columns: Any) -> None:
    """Write the largest of rows, NaN where there is one."""
    for row in range(len(starts) - 1):
        target = _row(out, row, samples)
        target[:] = _row(value, columns[starts[row]], samples)
        for entry in range(starts[row] + 1, starts[row + 1]):
            other = _row(value, columns[entry], samples)
            for place in range(samples):
                larger = other[place] > target[place] or other[place] != other[place]
                target[place] = other[place] if larger else target[place]


@summing
def _sum_beyond(value: Any, level: Any) -> Any:
    """Return by how much a row is more than a number, summed up."""
    total = value.dtype.type(0)
    for place in range(len(value)):
        total += value[place] - level
    return total


@summing
def _sum_of_squares(value: Any) -> Any:
    """Return the sum of the squares of a row."""
    total = value.dtype.type(0)
    for place in range(len(value)):
        total += value[place] * value[place]
    return total


@compiled
def _mean(value: Any, samples: int, weights: Any, alike: Any) -> Any:
    """Return the mean of rows weighed with a sum of 1: exactly an entry where all are equal."""
    number = value.dtype.type
    total, level = number(0), value[0]
    if alike:
        for begin in range(0, len(value), _STRETCH):
            total += _sum_beyond(value[begin : begin + _STRETCH], level)
        return level + total / number(len(value))
    for row in range(len(weights)):
        total += number(weights[row]) * _sum_beyond(_row(value, row, samples), level)
    return level + total / number(samples)


@compiled
def _centre(out: Any, value: Any, level: Any, samples: int, weights: Any, alike: Any) -> Any:
    """Write a value less its mean, and return the mean of the squares of what is left."""
    number = value.dtype.type
    total = number(0)
    length = _STRETCH if alike else samples
    for begin in range(0, len(value), length):
        part, target = value[begin : begin + length], out[begin : begin + length]
        for place in range(len(part)):
            target[place] = part[place] - level
        total += (number(1) if alike else number(weights[begin // length])) * _sum_of_squares(target)
    return total / number(len(value) if alike else samples)


@compiled
def _root(value: float, exponent: int, epsilon: float) -> tuple[float, int]:
    """Return what one over the root of epsilon plus value * 2**exponent multiplies by, value not 0."""
    mantissa, more = math.frexp(value)
    exponent += more
    if epsilon != 0:
        least, place = math.frexp(epsilon)
        top = max(exponent, place)
        mantissa = _power(mantissa, max(exponent - top, -2000)) + _power(least, max(place - top, -2000))
        exponent = top
    odd = exponent % 2
    return 1.0 / math.sqrt(mantissa * 2.0**odd), -((exponent - odd) // 2)


@compiled
def run_exactly(
    table: Any, first: int, samples: int, memory: Any, mantissas: Any, exponents: Any, ages: Any,
    factors: Any, powers: Any, starts: Any, columns: Any, entries: Any, epsilons: Any, most: float,
) -> int:  # fmt: skip
    """Run the operations from one on; return DONE, or the one that needs to be looked at more closely.

    most: how many times the variance in a normalisation the square of the mean may be.
    """
    for index in range(first, len(table)):
        op = table[index]
        code, out, a, b, rows, at = op[CODE], op[OUT], op[FIRST], op[SECOND], op[ROWS], op[AT]
        count = rows * samples
        target = memory[op[OUT_AT] * samples : op[OUT_AT] * samples + count]
        value = memory[op[FIRST_AT] * samples : op[FIRST_AT] * samples + count]
        if code == SCALE:
            number = op[NUMBER]
            if op[OUT_AT] != op[FIRST_AT]:
                target[:] = value
            mantissas[out], more = math.frexp(mantissas[a] * factors[number])
            exponents[out] = exponents[a] + powers[number] + more
            ages[out] = ages[a]
        elif code in (LINEAR, LEVEL, LARGEST):
            whole = memory[op[FIRST_AT] * samples :]
            bounds = starts[at : at + rows + 1]
            if code == LINEAR:
                _linear(target, whole, samples, bounds, columns, entries)
            elif code == LARGEST:
                _largest(target, whole, samples, bounds, columns)
            else:
                _level(target, whole, samples, bounds, columns, entries)
            mantissas[out], exponents[out], ages[out] = mantissas[a], exponents[a], ages[a] + 1
        elif code == RELU:
            for place in range(count):
                target[place] = 0.0 if value[place] <= 0.0 else value[place]  # NaN stays what it is
            mantissas[out], exponents[out], ages[out] = mantissas[a], exponents[a], ages[a] + 1
        elif code == STANDARDISE:
            weights = entries[at : at + rows]
            level = _mean(value, samples, weights, op[FLAG])
            square = _centre(target, value, level, samples, weights, op[FLAG])
            if level * level > most * square:
                return index
            if not 1 / _VAST < square < _VAST:  # else squares may have left the range of float64
                if op[OUT_AT] == op[FIRST_AT] or ages[a] < _LASTS:
                    return index
                _settle(value, a, exponents, ages)
                square = _centre(target, value, _mean(value, samples, weights, op[FLAG]), samples, weights, op[FLAG])
                if not 1 / _VAST < square < _VAST:
                    return index
            factor, power = _root(square * mantissas[a] ** 2, 2 * exponents[a], epsilons[index])
            if op[NUMBER] >= 0:
                factor *= factors[op[NUMBER]]
                power += powers[op[NUMBER]]
            mantissas[out], more = math.frexp(mantissas[a] * factor)
            exponents[out] = exponents[a] + power + more
            ages[out] = 0
            if not 1 / _NARROW**2 < square < _NARROW**2:
                _, shift = math.frexp(math.sqrt(square))
                unit = _power(1.0, -shift)
                for place in range(count):
                    target[place] *= unit
                exponents[out] += shift
        else:
            other = memory[op[SECOND_AT] * samples : op[SECOND_AT] * samples + count]
            apart = exponents[b] - exponents[a]
            age = max(ages[a], ages[b]) + 1
            if not -_NEAR <= apart <= _NEAR:
                _settle(value, a, exponents, ages)
                _settle(other, b, exponents, ages)
                apart = exponents[b] - exponents[a]
                age = _LASTS
            if -_FAR <= apart <= _FAR:
                swap = apart > 0 or (apart == 0 and mantissas[b] > mantissas[a])
            else:
                here, there = _peak(value), _peak(other)
                if not (0 < here < math.inf and 0 < there < math.inf):
                    return index
                here = math.log2(here) + math.log2(mantissas[a]) + exponents[a]
                there = math.log2(there) + math.log2(mantissas[b]) + exponents[b]
                swap = there > here
            large, small = (b, a) if swap else (a, b)
            ratio = _power(mantissas[small] / mantissas[large], exponents[small] - exponents[large])
            x, y = (ratio, 1.0) if swap else (1.0, ratio)
            if op[FLAG]:
                y = -y
            for place in range(count):
                target[place] = value[place] * x + other[place] * y
            mantissas[out], exponents[out], ages[out] = mantissas[large], exponents[large], age
    return DONE


@compiled
def run_plain(
    table: Any, first: int, samples: int, memory: Any, factors: Any, starts: Any, columns: Any, entries: Any,
    epsilons: Any, statistics: Any,
) -> None:  # fmt: skip
    """Run the operations from one on as they stand, in the precision of the memory.

    statistics: the mean and the mean of squares of each that is a normalisation, `[2, operations]`, which is written.
    """
    number = memory.dtype.type
    for index in range(first, len(table)):
        op = table[index]
        code, rows, at = op[CODE], op[ROWS], op[AT]
        count = rows * samples
        target = memory[op[OUT_AT] * samples : op[OUT_AT] * samples + count]
        value = memory[op[FIRST_AT] * samples : op[FIRST_AT] * samples + count]
        if code == SCALE:
            factor = factors[op[NUMBER]]
            for place in range(count):
                target[place] = value[place] * factor
        elif code in (LINEAR, LEVEL, LARGEST):
            whole = memory[op[FIRST_AT] * samples :]
            bounds = starts[at : at + rows + 1]
            if code == LINEAR:
                _linear(target, whole, samples, bounds, columns, entries)
            elif code == LARGEST:
                _largest(target, whole, samples, bounds, columns)
            else:
                _level(target, whole, samples, bounds, columns, entries)
        elif code == RELU:
            for place in range(count):
                target[place] = number(0) if value[place] <= 0 else value[place]
        elif code == STANDARDISE:
            weights = entries[at : at + rows]
            level = _mean(value, samples, weights, op[FLAG])
            square = _centre(target, value, level, samples, weights, op[FLAG])
            statistics[0, index], statistics[1, index] = level, square
            factor = number(1) if op[NUMBER] < 0 else factors[op[NUMBER]]
            factor /= number(math.sqrt(square + number(epsilons[index])))
            for place in range(count):
                target[place] *= factor
        else:
            other = memory[op[SECOND_AT] * samples : op[SECOND_AT] * samples + count]
            sign = number(-1) if op[FLAG] else number(1)
            for place in range(count):
                target[place] = value[place] + other[place] * sign


def compile_all() -> None:
    """Have everything compiled, or read from numba's cache."""
    table, none = np.zeros((0, COLUMNS), np.int64), np.zeros(0, np.int64)
    plain, floats = np.zeros(0, np.float32), np.zeros(0)
    run_exactly(table, 0, 1, floats, floats, none, none, floats, none, none, none, floats, floats, math.inf)
    run_plain(table, 0, 1, plain, plain, none, none, floats, floats, np.zeros((2, 0), np.float32))
