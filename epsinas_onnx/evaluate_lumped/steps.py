"""What a recurrent layer is asked for in one direction, and what it gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Steps(NamedTuple):
    """All steps of one direction. functions: by name. products: of the inputs with their weights, biases included but
    for a GRU's. recurrence: what an output is multiplied by in front of the next step. hidden, cell: in front of the
    first step. order: of the steps.
    """

    kind: str
    size: int
    functions: Sequence[str]
    products: Any
    recurrence: Any
    hidden: Any
    cell: Any
    order: Sequence[int]


class Done(NamedTuple, Generic[T]):
    """What each step puts out, and what the last one hands on."""

    outputs: Sequence[T]
    hidden: T
    cell: T
