"""Writes down what a rule does to a lowered graph while it works."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import onnx_ir as ir

from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.graph import Appender, Kind, Operation
from epsinas_onnx.lump.recipe import Action, Appended, LaidOut, Made, Recipe, Reshaped, Stored
from epsinas_onnx.lump.registry import Operands, Outcome
from epsinas_onnx.lump.value import Array, Dims, Lumped, Tensor

_LARGEST = 2**14
"""Bytes of the largest stored tensor in a recipe."""
_HARMLESS = frozenset({"in_body", "opset", "source"})
"""What a rule may ask a graph for without its recipe knowing."""


_OPERAND = "operand"


class _Unknown(Exception):
    """Raised where a value comes from elsewhere than the operands and what the rule made of them."""


class Recording(Appender):
    """Stands for a context's graph while a rule works: `with Recording(...) as recording`."""

    def __init__(self, context: Context, operands: Operands) -> None:
        self._context, self._operands = context, operands
        self._graph = context.graph
        self._actions: list[Action] = []
        self._places: dict[Tensor, int] = {}
        for place, operand in enumerate(operands):
            if operand is not None and operand.tensor is not None:
                self._places.setdefault(operand.tensor, place)
        self._made_by: dict[Tensor, object] = dict.fromkeys(self._places, _OPERAND)
        self._same: set[Tensor] = set()  # stored tensors that hold the same numbers whatever the operands hold
        self._count = len(operands)
        self._whole = True
        self._observed, self._guards = len(context.observed), len(context.guards)

    def __enter__(self) -> Recording:
        self._stand_for(self)
        return self

    def __exit__(self, *_: object) -> None:
        self._stand_for(self._graph)

    def _stand_for(self, graph: Any) -> None:
        context: Any = self._context
        context.graph, context.op, context.constant, context.reshape = graph, graph.op, graph.constant, graph.reshape

    def __getattr__(self, name: str) -> Any:
        """Return what nobody writes down, which leaves no recipe."""
        if name not in _HARMLESS:
            self._whole = False
        return getattr(self._graph, name)

    def append(
        self, operation: Operation, inputs: tuple[Tensor | None, ...], kind: Kind | None = None
    ) -> tuple[Tensor, ...]:
        """Do what `LoweredGraph.append` does."""
        self._whole &= operation.key is not None and all(map(_tells_all, operation.attributes.values()))
        places = tuple([-1 if tensor is None else self._place(tensor) for tensor in inputs])
        others = any(tensor in self._graph.initializers and tensor not in self._same for tensor in inputs)
        kind = Kind() if self._whole and not others else None
        made = self._graph.append(operation, inputs, kind)
        self._note(Appended(operation, places, kind), (operation.key, places), *made)
        return made

    def stored(self, key: Hashable, array: Array, dtype: ir.DataType | None) -> Tensor:
        """Do what `LoweredGraph.stored` does."""
        made = self._graph.stored(key, array, dtype)
        self._whole &= array.nbytes <= _LARGEST
        self._note(Stored(key, array, dtype), key, made)
        self._same.add(made)
        return made

    def reshape(self, tensor: Tensor, shape: Dims) -> Tensor:
        """Do what `LoweredGraph.reshape` does."""
        made = self._graph.reshape(tensor, shape)
        if made is not tensor:
            self._note_change(Reshaped(self._place(tensor), shape), tensor, made)
        return made

    def laid_out(self, tensor: Tensor, shape: Dims, change: Callable[[Array, Dims], Array]) -> Tensor | None:
        """Do what `LoweredGraph.laid_out` does."""
        made = self._graph.laid_out(tensor, shape, change)
        if made is not None:
            self._note_change(LaidOut(self._place(tensor), shape, change), tensor, made)
        return made

    def _note_change(self, action: Action, tensor: Tensor, made: Tensor) -> None:
        self._note(action, action, made)
        if tensor in self._same:
            self._same.add(made)

    def _place(self, tensor: Tensor) -> int:
        place = self._places.get(tensor, -1)
        self._whole &= place >= 0  # else it is from elsewhere, such as zeros that a context keeps
        return place

    def _note(self, action: Action, form: object, *made: Tensor) -> None:
        """Write down what an action made. form: what it was asked for, by which it is known if it is asked again."""
        self._actions.append(action)
        for tensor in made:
            # A graph gives what it has already instead of the same once more. Where that is an operand, or was made
            # by another action, it is so by chance, and may be two tensors in another graph.
            self._whole &= self._made_by.setdefault(tensor, form) == form
            self._places.setdefault(tensor, self._count)
            self._count += 1

    def recipe(self, made: Outcome) -> Recipe | None:
        """Return all that the rule did, which returned `made`; None where that is not known."""
        if not self._whole or not isinstance(made, Lumped) or len(self._context.guards) != self._guards:
            return None
        same = next((place for place, operand in enumerate(self._operands) if operand is made), None)
        try:
            observed = [(self._made(m), self._made(v)) for _, m, v in self._context.observed[self._observed :]]
            return Recipe(tuple(self._actions), self._made(made) if same is None else same, tuple(observed))
        except _Unknown:
            return None

    def _made(self, value: Lumped) -> Made:
        place = -1 if value.tensor is None else self._places.get(value.tensor, -1)
        if place < 0 or value.known is not None or value.table is not None or value.parts is None:
            raise _Unknown
        return Made(
            place, self._cause(value), value.parts, value.dtype, value.factor, value.weighted, value.varied,
            value.depends, value.zero,
        )  # fmt: skip

    def _cause(self, value: Lumped) -> int:
        if value.cause is None:
            return -1
        having = [place for place, o in enumerate(self._operands) if o is not None and o.cause is not None]
        own = self._operands[having[0]] if len(having) == 1 else None
        if own is None or own.cause is not value.cause:
            raise _Unknown  # a new one names the node, and of several the first in the graph counts
        return having[0]


def _tells_all(attribute: Any) -> bool:
    return is_plain(attribute.value if isinstance(attribute, ir.Attr) else attribute)


def is_plain(value: Any) -> bool:
    """Whether the value of an attribute is numbers and text alone, which do not belong to a graph."""
    items = value if isinstance(value, (list, tuple)) else (value,)
    return all(type(item) in (int, float, str) for item in items)
