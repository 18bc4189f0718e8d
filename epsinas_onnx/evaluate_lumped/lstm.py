"""All steps of an LSTM with its usual functions, on plain arrays: what every sample has, then how each deviates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from epsinas_onnx.evaluate_lumped.scaled import Floats
from epsinas_onnx.evaluate_lumped.smooth import sigmoid, sigmoid_rise, sigmoid_sides


class Levels(NamedTuple):
    """What every sample has, step by step: the sums that go into the gates, the gates, the cell, its tanh, the output.

    Axes: steps, one of the gates or cells behind the other, samples.
    """

    sums: Floats
    gates: Floats
    cells: Floats
    curved: Floats
    outputs: Floats


def levels(products: Floats, matrix: Floats, h: Floats, c: Floats, order: Sequence[int]) -> Levels:
    """Return the levels. products: of the inputs, `[steps, 4n, samples]`. matrix: `[4n, n]`. h, c: `[n, samples]`."""
    n = matrix.shape[1]
    samples = max(products.shape[2], h.shape[1], c.shape[1])
    made = Levels(*(np.empty((len(products), count * n, samples)) for count in (4, 4, 1, 1, 1)))
    for place in order:
        gates = made.gates[place]
        made.sums[place] = total = products[place] + matrix @ h
        gates[: 3 * n], gates[3 * n :] = sigmoid(total[: 3 * n]), np.tanh(total[3 * n :])
        made.cells[place] = c = gates[2 * n : 3 * n] * c + gates[:n] * gates[3 * n :]
        made.curved[place] = curve = np.tanh(c)
        made.outputs[place] = h = gates[n : 2 * n] * curve
    return made


def deviations(
    products: Floats,
    matrix: Floats,
    h: Floats | None,
    c: Floats | None,
    before: Floats,
    level: Levels,
    order: Sequence[int],
) -> tuple[Floats, Floats] | None:
    """Return how outputs deviate, `[steps, n, samples]`, and the last cell; None beyond what `sigmoid_rise` holds.

    before: the cell that every sample has in front of the first step; the other arguments are as of `levels`, of what a
    sample has beyond that. A tanh is a sigmoid of twice as much, from -1 to 1.
    """
    n = matrix.shape[1]
    twice = np.repeat((1.0, 2.0), (3 * n, n))[:, None]
    gates, cells = sigmoid_sides(level.sums * twice), sigmoid_sides(2.0 * level.cells)
    if gates is None or cells is None:
        return None
    ups, downs, slopes = gates
    slopes *= twice
    up, down, slope = cells
    slope *= 2.0
    made = np.empty((len(products), n, products.shape[2]))
    bases = level.gates.reshape(len(products), 4, n, -1)
    for place in order:
        step = products[place] if h is None else products[place] + matrix @ h
        moved = sigmoid_rise(ups[place], downs[place], slopes[place], step * twice)
        i, o, forget, new = moved.reshape(4, n, -1)
        input_gate, output_gate, forget_gate, cell = bases[place]
        kept = forget * before if c is None else forget * (before + c) + forget_gate * c
        kept += i * (cell + new)
        kept += input_gate * new
        c, before = kept, level.cells[place]
        curve = sigmoid_rise(up[place], down[place], slope[place], 2.0 * c)
        made[place] = h = o * (level.curved[place] + curve) + output_gate * curve
    assert c is not None
    return made, c
