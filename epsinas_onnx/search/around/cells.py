"""Integers that shapes are made of: where each is stored in the graph, and which size it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import onnx_ir as ir

from epsinas_onnx.search.around.forms import Form, number

INTEGERS = frozenset({ir.DataType.INT64, ir.DataType.INT32})
"""Element types of what is followed."""
MOST_CELLS = 64
"""Entries of the longest list that is followed."""


@dataclass(frozen=True)
class Place:
    """One entry of a stored list of integers, as one input of one node reads it."""

    node: str
    slot: int
    index: int


@dataclass(frozen=True)
class Cell:
    """One integer. value: with the file's own widths.

    place: where it is stored, which is where it can be changed. form: the size that it is taken from, by Shape.
    factors: what it is the product of. None of them where nobody knows how it came about.
    """

    value: int
    place: Place | None = None
    form: Form | None = None
    factors: tuple[Cell, Cell] | None = None

    @property
    def is_listed(self) -> bool:
        """Whether it, or a factor of it, is stored in the graph."""
        return self.place is not None or any(factor.is_listed for factor in self.factors or ())


class Sizes(Protocol):
    """What the cells of a node's outputs are found with."""

    def cells(self, node: ir.Node, slot: int) -> tuple[Cell, ...] | None:
        """Return the integers that a node reads in one slot; None where they are not followed."""

    def forms(self, value: ir.Value | None) -> tuple[Form, ...] | None:
        """Return the sizes of a value's axes; None where its rank is unknown."""

    def measure(self, form: Form) -> int:
        """Return a size in the file as it is."""


def listed(node: ir.Node, slot: int, values: Sequence[int]) -> tuple[Cell, ...]:
    """Return the cells of a stored list that a node reads."""
    return tuple(Cell(int(value), Place(str(node.name), slot, index)) for index, value in enumerate(values))


def cells_of(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    """Return the integers that a node gives, where they are a short list that is followed."""
    find = _FOUND.get(node.op_type) if node.domain == "" else None
    return None if find is None else find(node, sizes)


def _shape(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    forms = sizes.forms(node.inputs[0])
    if forms is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(forms))
    return tuple(Cell(sizes.measure(form), form=form) for form in forms[start:end])


def _same(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    found = sizes.cells(node, 0)
    if found is not None and node.op_type in ("Reshape", "Cast", "Identity", "Squeeze", "Unsqueeze"):
        return tuple(Cell(one.value, form=one.form, factors=(one, _ONE)) for one in found)
    return found


_ONE = Cell(1, form=number(1))


def _gather(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    data, indices = sizes.cells(node, 0), sizes.cells(node, 1)
    if data is None or indices is None or node.attributes.get_int("axis", 0) != 0:
        return None
    return tuple(data[index.value] for index in indices if -len(data) <= index.value < len(data))


def _slice(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    data, starts, ends = (sizes.cells(node, slot) for slot in range(3))
    steps = sizes.cells(node, 4) if len(node.inputs) > 4 and node.inputs[4] is not None else None
    if data is None or not starts or not ends:
        return None
    return data[starts[0].value : ends[0].value : steps[0].value if steps else 1]


def _concat(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    found: list[Cell] = []
    for slot in range(len(node.inputs)):
        part = sizes.cells(node, slot)
        if part is None:
            return None
        found += part
    return tuple(found)


def _multiply(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    return _pairs(node, sizes, lambda a, b: Cell(a.value * b.value, factors=(a, b)))


def _calculate(node: ir.Node, sizes: Sizes) -> tuple[Cell, ...] | None:
    compute = {"Add": np.add, "Sub": np.subtract, "Div": np.floor_divide, "Mod": np.mod}[node.op_type]
    return _pairs(node, sizes, lambda a, b: Cell(int(compute(a.value, b.value))))


def _pairs(node: ir.Node, sizes: Sizes, make: Callable[[Cell, Cell], Cell]) -> tuple[Cell, ...] | None:
    first, second = sizes.cells(node, 0), sizes.cells(node, 1)
    if not first or not second or (node.op_type in ("Div", "Mod") and any(cell.value == 0 for cell in second)):
        return None
    most = max(len(first), len(second))
    if len(first) not in (1, most) or len(second) not in (1, most):
        return None
    wide = [part * most if len(part) == 1 else part for part in (first, second)]
    return tuple(make(a, b) for a, b in zip(*wide, strict=True))


_FOUND: dict[str, Callable[[ir.Node, Sizes], tuple[Cell, ...] | None]] = {
    "Shape": _shape, "Gather": _gather, "Slice": _slice, "Concat": _concat, "Mul": _multiply,
    **dict.fromkeys(("Identity", "Cast", "Squeeze", "Unsqueeze", "Reshape"), _same),
    **dict.fromkeys(("Add", "Sub", "Div", "Mod"), _calculate),
}  # fmt: skip
