"""Owns a node as counting sees it: shapes, attributes and bodies, whichever kind of graph it stands in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Dims: TypeAlias = tuple[int, ...]

UNKNOWN_SHAPE = "a shape is unknown"


class Uncountable(Exception):
    """Raised where the products of a node cannot be counted; its text ends the sentence that says why."""


class Operand(NamedTuple):
    """An operand that is there. shape, value: None where unknown."""

    shape: Dims | None
    value: npt.NDArray[Any] | None = None


class Body(NamedTuple):
    """A graph inside a node. endless: whether the condition that a loop's body gives stays as it was, or is true."""

    calls: Sequence[Call]
    endless: bool = False


@dataclass(frozen=True)
class Call:
    """A node. inputs: None for one that is left out. outputs: shapes, None where unknown.

    attributes: plain Python values, graphs left out. opset: of the standard domain.
    """

    name: str
    op_type: str
    domain: str
    inputs: Sequence[Operand | None]
    outputs: Sequence[Dims | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    bodies: Sequence[Body] = ()
    opset: int = 0

    @property
    def place(self) -> str:
        """Return how messages call the node."""
        return f"{self.name!r} ({self.op_type})"

    def has(self, slot: int) -> bool:
        """Whether an operand is there."""
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def shape(self, slot: int) -> Dims | None:
        """Return an operand's shape, None where it is unknown or the operand is not there."""
        operand = self.inputs[slot] if slot < len(self.inputs) else None
        return None if operand is None else operand.shape

    def dims(self, slot: int, rank: int | None = None) -> Dims:
        """Return an operand's shape; raises Uncountable where it is unknown or has not `rank` axes."""
        found = self.shape(slot)
        if found is None:
            raise Uncountable(UNKNOWN_SHAPE)
        if rank is not None and len(found) != rank:
            raise Uncountable(f"input {slot} has {len(found)} axes where {rank} are expected")
        return found

    def number(self, slot: int) -> int | None:
        """Return the only entry of an operand, None where it is unknown."""
        operand = self.inputs[slot] if slot < len(self.inputs) else None
        value = None if operand is None else operand.value
        return int(np.reshape(value, -1)[0]) if value is not None and value.size == 1 else None

    def output(self) -> Dims | None:
        """Return the shape of the first output."""
        return self.outputs[0] if self.outputs else None

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return int(self.attributes.get(name, default))

    def required(self, name: str) -> int:
        """Return an integer attribute that the operator must have."""
        if name not in self.attributes:
            raise Uncountable(f"it has no attribute {name}")
        return int(self.attributes[name])

    def text(self, name: str, default: str = "") -> str:
        """Return a text attribute."""
        value = self.attributes.get(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)


Formula: TypeAlias = "Callable[[Call], int]"


def elements(dims: Sequence[int]) -> int:
    """Return how many entries a tensor of a shape has."""
    return math.prod(dims)
