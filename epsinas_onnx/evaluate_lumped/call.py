"""Owns what is known of a node of the lowered graph before any number flows through it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.evaluate_lumped.scaled import Array
from epsinas_onnx.lump.graph import Node


class Unsupported(Exception):
    """Raised where a graph has something that only ONNX Runtime can run as a whole."""


@dataclass(slots=True)  # a frozen one takes three times as long to make
class Call:
    """One node, never modified. stored: its operands as far as they are the same for every input and constant.

    bodies: by attribute name, what runs a body: operands in, outputs out. imports: operator sets by domain.
    """

    node: Node
    stored: Sequence[Array | None]
    imports: Mapping[str, int]
    bodies: Mapping[str, Callable[[Sequence[Any]], list[Any]]] = field(default_factory=dict)

    @property
    def opset(self) -> int:
        """Return the version of ONNX's own operator set."""
        return self.imports.get("", 1)

    @property
    def op_type(self) -> str:
        """Return the operator's name."""
        return self.node.op_type

    def has(self, slot: int) -> bool:
        """Whether there is an operand in a slot."""
        return slot < len(self.node.inputs) and self.node.inputs[slot] is not None

    def shape(self, slot: int) -> tuple[int, ...] | None:
        """Return the shape of an operand, where it is known."""
        tensor = self.node.inputs[slot] if slot < len(self.node.inputs) else None
        return None if tensor is None else tensor.shape

    def constant(self, slot: int) -> Array | None:
        """Return a stored operand, None where it is absent or computed."""
        return self.stored[slot] if slot < len(self.stored) else None

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute as a plain Python value or an array; a default is float32, as one in a file would be."""
        if type(default) is float and name not in self.node.attributes:
            return float(np.float32(default))
        value = self.node.attributes.get(name, default)
        if value is default or type(value) in (int, float, str):  # which is asked in no time
            return list(value) if isinstance(value, (list, tuple)) else value
        if not isinstance(value, (list, tuple, np.ndarray)) and isinstance(value, ir.Attr):
            tensor = value.type == ir.AttributeType.TENSOR
            value = value.value.numpy() if tensor else value.value
        return list(value) if isinstance(value, (list, tuple)) else value

    def integers(self, name: str, slot: int | None = None) -> list[int] | None:
        """Return a list of integers from an attribute, or from a stored operand where it became one."""
        given = self.attribute(name)
        if given is not None:
            return [int(item) for item in np.atleast_1d(given)]
        if slot is None or not self.has(slot):
            return None
        stored = self.constant(slot)
        if stored is None:
            raise Unsupported(f"{self.op_type} with a computed {name}")
        return [int(item) for item in stored.reshape(-1)]
