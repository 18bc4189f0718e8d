"""Follows widths through a graph: which axes change together, and which stored integers change with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TypeAlias

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.traversal import node_bodies
from epsinas_onnx.search.around.cells import INTEGERS, MOST_CELLS, Cell, Place, cells_of, listed
from epsinas_onnx.search.around.forms import Equations, Form, number, times

Shapes = Mapping[str, tuple[int, ...]]
Choices = Mapping[tuple[tuple[int, ...], tuple[int, ...]], int]
"""For a group of axes that a Reshape splits, by sizes before and behind: which of the axes behind carries a width."""

Outputs: TypeAlias = Sequence[Sequence[Form] | None] | None
"""The sizes of each output of a node, None for one that nobody follows; None where the node is not known."""
RuleFor: TypeAlias = "Callable[[ir.Node], Callable[[ir.Node, Walk], Outputs] | None]"
"""What finds the rule for a node (`rules.rule_for`)."""


@dataclass
class Followed:
    """What was found. forms: of every value, by name. places: stored integers that are a size.

    attributes: by node and name. tensors: stored tensors that are made anew. splits: groups of axes for which a choice
    was made, with the size in question and how many choices there are.
    """

    equations: Equations = field(default_factory=Equations)
    forms: dict[str, tuple[Form, ...]] = field(default_factory=dict)
    places: dict[Place, Form] = field(default_factory=dict)
    attributes: dict[tuple[str, str], Form] = field(default_factory=dict)
    tensors: dict[str, tuple[Form, ...]] = field(default_factory=dict)
    whole: list[Form] = field(default_factory=list)
    splits: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[Form, int]] = field(default_factory=dict)

    def all_forms(self) -> Iterable[Form]:
        """Yield every size that has to stay whole."""
        for forms in (*self.forms.values(), *self.tensors.values()):
            yield from forms
        yield from self.places.values()
        yield from self.attributes.values()
        yield from self.whole


class Walk:
    """One walk over the graph, in order; `choices` decides what equations leave open."""

    def __init__(
        self, graph: ir.Graph, shapes: Shapes, learned: Iterable[str], choices: Choices, rule_for: RuleFor
    ) -> None:
        self.found = Followed()
        self.equations = self.found.equations
        self.choices = choices
        self._shapes = shapes
        self._learned = frozenset(learned)
        self._cells: dict[str, tuple[Cell, ...]] = {}
        self._start(graph)
        for node in graph:
            rule = rule_for(node)
            given = None
            if node_bodies(node):
                self._fix_captured(node)
            elif rule is not None and all(self.shape(v) is not None for v in node.inputs if v is not None):
                given = rule(node, self)
            self._note(node, given)
        for value in graph.outputs:
            self.fix(value)

    def forms(self, value: ir.Value | None) -> tuple[Form, ...] | None:
        """Return the sizes of a value's axes, None where its rank is unknown."""
        return None if value is None else self.found.forms.get(str(value.name))

    def axes(self, value: ir.Value | None) -> list[Form]:
        """Return the sizes of the axes of a value that has a shape; raises LookupError."""
        forms = self.forms(value)
        if forms is None:
            raise LookupError
        return list(forms)

    def shape(self, value: ir.Value | None) -> tuple[int, ...] | None:
        """Return the sizes of a value in the file as it is."""
        return None if value is None else self._shapes.get(str(value.name))

    def measure(self, form: Form) -> int:
        """Return a size in the file as it is."""
        return int(self.equations.measure(form))

    def cells(self, node: ir.Node, slot: int) -> tuple[Cell, ...] | None:
        """Return the integers that a node reads in one slot; None where they are not followed."""
        value = node.inputs[slot] if slot < len(node.inputs) else None
        if value is None:
            return None
        tensor = value.const_value if value.is_initializer() else None
        if tensor is not None and tensor.dtype in INTEGERS and tensor.size <= MOST_CELLS:
            return listed(node, slot, tensor.numpy().reshape(-1).tolist())
        return self._cells.get(str(value.name))

    def integers(self, node: ir.Node, slot: int, attribute: str = "") -> list[int] | None:
        """Return a list that an attribute or an input gives, as it is."""
        if attribute in node.attributes:
            one = node.attributes[attribute]
            return [one.as_int()] if one.type == ir.AttributeType.INT else list(one.as_ints())
        found = self.cells(node, slot)
        return None if found is None else [cell.value for cell in found]

    def demand(self, cell: Cell, form: Form) -> None:
        """Decide that a stored integer is a size; what cannot be changed fixes it."""
        if cell.place is not None:
            known = self.found.places.setdefault(cell.place, form)
            self.equations.equal(known, form)
        elif cell.form is not None:
            self.equations.equal(cell.form, form)
        elif cell.factors is not None:
            first, second = cell.factors
            if not first.is_listed:
                first, second = second, first
            if second.value != 0:
                self.demand(first, times(form, Fraction(1, second.value)))
            else:
                self.equations.fix(form)
            self._hold(second)
        elif not self.equations.is_fixed(form):
            self.equations.fix(form)

    def _hold(self, cell: Cell) -> None:
        if cell.place is not None:
            self.demand(cell, number(cell.value))
        elif cell.form is not None:
            self.equations.fix(cell.form)
        for factor in cell.factors or ():
            self._hold(factor)

    def equal(self, first: Form, second: Form) -> None:
        """Decide that two axes are equally long."""
        self.equations.equal(first, second)

    def fix(self, value: ir.Value | None) -> None:
        """Decide that the shape of a value never changes."""
        for form in self.forms(value) or ():
            self.equations.fix(form)

    def attribute(self, node: ir.Node, name: str, form: Form) -> None:
        """Decide that an attribute of a node is a size."""
        self.found.attributes[str(node.name), name] = form

    def new(self, size: int, tensor: str, rank: int = 1) -> Form:
        """Return the size of an axis of a stored tensor."""
        return self.equations.new(size, tensor, rank)

    def _start(self, graph: ir.Graph) -> None:
        for value in graph.inputs:
            shape = self.shape(value)
            if shape is not None:
                self.found.forms[str(value.name)] = tuple(map(number, shape))
        for name, value in graph.initializers.items():
            tensor = value.const_value
            if tensor is None:
                continue
            dims = [int(dim) for dim in tensor.shape]  # type: ignore[arg-type]
            forms = tuple(map(number, dims))
            if value.dtype in FLOATS and dims and (name in self._learned or is_uniform(tensor) or _is_added(value)):
                forms = tuple(self.new(dim, name, len(dims)) for dim in dims)
                self.found.tensors[name] = forms
            self.found.forms[name] = forms

    def _note(self, node: ir.Node, given: Sequence[Sequence[Form] | None] | None) -> None:
        shapes = [self.shape(value) for value in node.outputs]
        if given is not None:
            fits = all(
                forms is None or (shape is not None and [self.measure(form) for form in forms] == list(shape))
                for forms, shape in zip(given, shapes, strict=False)
            )
            given = given if fits else None
        unknown = any(shape is None and value.uses() for value, shape in zip(node.outputs, shapes, strict=True))
        if given is None or unknown:
            for value in node.inputs:
                self.fix(value)
        for index, (value, shape) in enumerate(zip(node.outputs, shapes, strict=True)):
            forms = given[index] if given is not None and index < len(given) else None
            if shape is not None:
                self.found.forms[str(value.name)] = tuple(map(number, shape) if forms is None else forms)
        if len(node.outputs) == 1 and node.outputs[0].dtype in INTEGERS:
            cells = cells_of(node, self)
            if cells is not None:
                self._cells[str(node.outputs[0].name)] = cells

    def _fix_captured(self, node: ir.Node) -> None:
        for body in node_bodies(node):
            for inner in body.all_nodes():
                for value in inner.inputs:
                    self.fix(value)
            for value in body.outputs:
                self.fix(value)


_PASSED_ON = frozenset({"Slice", "Gather", "Unsqueeze", "Squeeze", "Identity", "Cast", "Expand"})


def _is_added(value: ir.Value) -> bool:
    """Whether a stored table is only added to the signal, as positions are: a part of it then is a table as well."""
    uses = list(value.uses())
    return bool(uses) and all(
        use.node.op_type == "Add"
        or (use.node.op_type in _PASSED_ON and use.idx == 0 and _is_added(use.node.outputs[0]))
        for use in uses
    )


def is_uniform(tensor: ir.TensorProtocol) -> bool:
    """Whether a stored tensor of several entries is one number repeated, so that any size of it is the same thing."""
    if not 1 < tensor.size <= 1 << 16:
        return False
    entries = tensor.numpy().reshape(-1)
    return bool(np.all(entries == entries[0]))


_MOST_WALKS = 16
"""How many choices for Reshapes are tried beside the usual ones."""


def follow(graph: ir.Graph, shapes: Shapes, learned: Iterable[str], rule_for: RuleFor) -> Followed:
    """Return which sizes change together, with the choices for Reshapes under which most widths stay free."""
    learned = frozenset(learned)
    choices: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
    best = Walk(graph, shapes, learned, choices, rule_for).found
    tried = 0
    for key in list(best.splits):
        form, count = best.splits.get(key, ((), 0))
        if not form or not best.equations.is_fixed(form):
            continue
        for choice in range(1, count):
            tried += 1
            if tried > _MOST_WALKS:
                return best
            other = Walk(graph, shapes, learned, {**choices, key: choice}, rule_for).found
            if _free(other) > _free(best):
                best, choices = other, {**choices, key: choice}
                break
    return best


def _free(found: Followed) -> int:
    forms = (form for forms in found.forms.values() for form in forms)
    return sum(not found.equations.is_fixed(form) for form in forms)
