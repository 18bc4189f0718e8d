"""What Reshape, Flatten and Expand say of sizes: axes are merged and cut, and one of them carries the width."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import onnx_ir as ir

from epsinas_onnx.search.around.cells import Cell
from epsinas_onnx.search.around.follow import Walk
from epsinas_onnx.search.around.forms import Form, number, times


def reshape(node: ir.Node, walk: Walk) -> list[list[Form]] | None:
    """Return the sizes behind a Reshape, whose list of sizes is followed where a width goes through it."""
    x, after = walk.axes(node.inputs[0]), walk.shape(node.outputs[0])
    if after is None:
        return None
    cells = walk.cells(node, 1)
    if cells is None or len(cells) != len(after):
        free = [form for form in x if not walk.equations.is_fixed(form)]
        return None if free else [list(map(number, after))]
    return _regrouped(walk, x, after, cells, _copied(node, x, cells))


def _copied(node: ir.Node, x: Sequence[Form], cells: Sequence[Cell]) -> dict[int, Form]:
    """Return the sizes that Reshape copies because its list says 0."""
    if node.attributes.get_int("allowzero", 0):
        return {}
    return {axis: x[axis] for axis, cell in enumerate(cells) if cell.value == 0 and axis < len(x)}


def flatten(node: ir.Node, walk: Walk) -> list[list[Form]] | None:
    """Return the sizes behind a Flatten."""
    x, after = walk.axes(node.inputs[0]), walk.shape(node.outputs[0])
    return None if after is None else _regrouped(walk, x, after, None, {})


def expand(node: ir.Node, walk: Walk) -> list[list[Form]] | None:
    """Return the sizes behind an Expand."""
    x, after, cells = walk.axes(node.inputs[0]), walk.shape(node.outputs[0]), walk.cells(node, 1)
    if after is None:
        return None
    result = list(map(number, after))
    for axis, form in enumerate(x, start=len(after) - len(x)):
        if walk.measure(form) != 1 or after[axis] == 1:
            result[axis] = form
            behind = axis - len(after)
            if cells is None and not walk.equations.is_fixed(form):
                return None
            if cells is not None and len(cells) >= -behind and cells[behind].value != 1:
                walk.demand(cells[behind], form)
        elif cells is not None and len(cells) == len(after):
            result[axis] = repeated(walk, cells[axis], str(node.outputs[0].name), len(after))
    for axis in range(len(after) - len(x)):
        if cells is not None:
            result[axis] = repeated(walk, cells[axis], str(node.outputs[0].name), len(after))
    return [result]


def repeated(walk: Walk, cell: Cell, tensor: str, rank: int) -> Form:
    """Return the size of an axis along which one entry is repeated, as often as a stored integer says."""
    if cell.form is not None:
        return cell.form
    if not cell.is_listed or cell.value <= 1:
        return number(cell.value)
    form = walk.new(cell.value, tensor, rank)
    walk.demand(cell, form)
    return form


def _regrouped(
    walk: Walk, x: Sequence[Form], after: Sequence[int], cells: Sequence[Cell] | None, copied: dict[int, Form]
) -> list[list[Form]] | None:
    result = list(map(number, after))
    before = [walk.measure(form) for form in x]
    for sources, targets in _groups(before, after):
        free = [form for form in (x[axis] for axis in sources) if not walk.equations.is_fixed(form)]
        if len(free) > 1 or (free and not targets):
            return None
        if not free:
            for axis in targets:  # a size that a Shape gives must not change either
                if cells is not None and cells[axis].form is not None:
                    walk.equal(cells[axis].form, number(after[axis]))  # type: ignore[arg-type]
            continue
        rest = math.prod(before[axis] for axis in sources) // walk.measure(free[0])
        total = times(free[0], rest)
        axis = _carrier(walk, before, sources, after, targets, cells, copied, free[0])
        form = times(total, Fraction(1, math.prod(after[other] for other in targets if other != axis)))
        result[axis] = form
        if axis in copied:
            walk.equal(copied[axis], form)
        elif cells is not None and cells[axis].value != -1:
            walk.demand(cells[axis], form)
    return [result]


def _carrier(
    walk: Walk, before: Sequence[int], sources: Sequence[int], after: Sequence[int], targets: Sequence[int],
    cells: Sequence[Cell] | None, copied: dict[int, Form], free: Form,
) -> int:  # fmt: skip
    """Return the axis behind a Reshape that grows and shrinks with the width before it."""
    real = [axis for axis in targets if after[axis] > 1]
    if not real:
        return targets[-1]
    for axis in real:
        given = copied.get(axis, None if cells is None else cells[axis].form)
        if given is not None and not walk.equations.is_fixed(given):
            return axis
    open_ones = [axis for axis in real if cells is None or axis in copied or cells[axis].form is None] or real
    if len(open_ones) == 1:
        return open_ones[0]
    # of features, which are last, heads are cut off in front and keep their size; of channels, groups keep their number
    last = sources[-1] == len(before) - 1
    order = [*open_ones[-2::-1], open_ones[-1]] if last else [*reversed(open_ones)]
    key = (tuple(before[axis] for axis in sources), tuple(after[axis] for axis in targets))
    walk.found.splits.setdefault(key, (free, len(order)))
    return order[walk.choices.get(key, 0) % len(order)]


def _groups(before: Sequence[int], after: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield which axes before a Reshape become which behind it, as few at a time as their products allow."""
    i = j = 0
    while i < len(before) or j < len(after):
        sources, targets, left, right = [], [], 1, 1
        if i < len(before):
            sources, left, i = [i], before[i], i + 1
        if j < len(after):
            targets, right, j = [j], after[j], j + 1
        while left != right:
            if (left < right and i < len(before)) or j >= len(after):
                if i >= len(before):
                    break
                left, i = left * before[i], i + 1
                sources.append(i - 1)
            else:
                right, j = right * after[j], j + 1
                targets.append(j - 1)
        if j == len(after):
            while i < len(before) and before[i] == 1:
                sources.append(i)
                i += 1
        if i == len(before):
            while j < len(after) and after[j] == 1:
                targets.append(j)
                j += 1
        yield sources, targets
