"""What a rule is given: one node, the gradients of its outputs, and the means to write those of its inputs."""

from __future__ import annotations

from collections.abc import Sequence, Set
from typing import Any

import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.proxies.reverse.scope import Scope
from epsinas_onnx.proxies.reverse.writer import Array, Writer

Number = ir.Value | float


class Call:
    """One node of the forward graph on a path from what is differentiated by to what is differentiated.

    Attributes:
        node: the node.
        gradients: of its outputs, None for one that nothing depends on.
        wanted: slots of the inputs whose gradients are wanted.
        captured: values that bodies of the node read from outside, and whose gradients are wanted.
        active: all values that depend on what is differentiated by.
        wrt: what is differentiated by.
        scope: the graph or body that this is part of.
    """

    def __init__(
        self, node: ir.Node, gradients: Sequence[ir.Value | None], active: Set[ir.Value], wrt: Set[ir.Value],
        scope: Scope, captured: Sequence[ir.Value] = (),
    ) -> None:  # fmt: skip
        self.node, self.gradients, self.active, self.wrt, self.scope = node, gradients, active, wrt, scope
        self.wanted = frozenset(slot for slot, value in enumerate(node.inputs) if value in active)
        self.captured = tuple(captured)
        self.write: Writer = scope.write

    @property
    def opset(self) -> int:
        """Return the version of the standard operators."""
        return self.write.opset

    @property
    def grad(self) -> ir.Value:
        """Return the gradient of output 0; raises UnsupportedError where another output is used and this is not."""
        gradient = self.gradients[0]
        if gradient is None or any(other is not None for other in self.gradients[1:]):
            raise self.refuse("it is used by another output than its first, whose derivative is not written")
        return gradient

    @property
    def x(self) -> ir.Value:
        """Return input 0."""
        return self.input(0)

    @property
    def y(self) -> ir.Value:
        """Return output 0."""
        return self.node.outputs[0]

    @property
    def dtype(self) -> ir.DataType:
        """Return the float type that the node computes in, which is that of its output 0."""
        return self.y.dtype or self.x.dtype or ir.DataType.FLOAT

    def input(self, slot: int) -> ir.Value:
        """Return an input that must be there."""
        value = self.optional(slot)
        if value is None:
            raise self.refuse(f"it has no input {slot}")
        return value

    def optional(self, slot: int) -> ir.Value | None:
        """Return an input, None where it is left out."""
        return self.node.inputs[slot] if slot < len(self.node.inputs) else None

    def shape(self, slot: int = 0) -> tuple[int, ...]:
        """Return the shape of an input."""
        return self.shape_of(self.input(slot))

    @property
    def out(self) -> tuple[int, ...]:
        """Return the shape of output 0."""
        return self.shape_of(self.y)

    def shape_of(self, value: ir.Value) -> tuple[int, ...]:
        """Return the shape of a value; raises UnsupportedError where nothing tells it."""
        shape = known_shape(value)
        if shape is None:
            constant = self.scope.constants.of(value)
            if constant is None:
                raise self.refuse(f"the shape of {value.name!r} is not known, and its derivative needs it")
            shape = constant.shape
        return shape

    def known(self, slot: int) -> Array | None:
        """Return an input's entries where they are stored or follow from shapes, None where they do not."""
        value = self.optional(slot)
        return None if value is None else self.scope.constants.of(value)

    def array(self, slot: int) -> Array:
        """Return the same of an input that must be known; raises UnsupportedError where it is not."""
        array = self.known(slot)
        if array is None:
            raise self.refuse(f"input {slot} is computed at run time, and its derivative needs it ahead")
        return array

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute."""
        return self.node.attributes.get_int(name, default)

    def integers(self, name: str) -> list[int] | None:
        """Return an attribute of integers, None where it is left out."""
        found = self.node.attributes.get(name)
        return None if found is None else [int(entry) for entry in found.as_ints()]

    def number(self, name: str, default: float) -> float:
        """Return a float attribute."""
        return self.node.attributes.get_float(name, default)

    def text(self, name: str, default: str) -> str:
        """Return a text attribute."""
        return self.node.attributes.get_string(name, default)

    def axis(self, name: str = "axis", default: int = 0) -> int:
        """Return an attribute that counts axes of input 0, from 0."""
        axis = self.integer(name, default)
        rank = len(self.shape())
        return axis + rank if axis < 0 else axis

    def refuse(self, why: str) -> UnsupportedError:
        """Return the error that says why this node has no derivative here."""
        return self.scope.refuse(self.node, why)

    # The arithmetic of rules: numbers take the float type of the node.

    def value(self, number: Number) -> ir.Value:
        """Return a value, of a number a constant."""
        return number if isinstance(number, ir.Value) else self.write.scalar(number, self.dtype)

    def op(self, op_type: str, *inputs: Number, **attributes: Any) -> ir.Value:
        """Append an operator of values and numbers."""
        return self.write.op(op_type, [self.value(given) for given in inputs], **attributes)

    def add(self, a: Number, b: Number) -> ir.Value:
        """Append a sum."""
        return self.op("Add", a, b)

    def sub(self, a: Number, b: Number) -> ir.Value:
        """Append a difference."""
        return self.op("Sub", a, b)

    def mul(self, a: Number, b: Number) -> ir.Value:
        """Append a product."""
        return self.op("Mul", a, b)

    def div(self, a: Number, b: Number) -> ir.Value:
        """Append a quotient."""
        return self.op("Div", a, b)

    def where(self, condition: ir.Value, then: Number, other: Number) -> ir.Value:
        """Append a choice by entry."""
        return self.write.where(condition, self.value(then), self.value(other), self.dtype)

    def only(self, condition: ir.Value, value: ir.Value, unless: bool = False) -> ir.Value:
        """Append a value where a condition holds (or does not, for `unless`) and 0 elsewhere.

        It is a product with the condition as numbers: a Where of whole tensors takes ONNX Runtime ten times as long.
        """
        if unless:
            condition = self.op("Not", condition)
        return self.mul(value, self.op("Cast", condition, to=int(self.dtype)))

    def sum_to(self, value: ir.Value, slot: int) -> ir.Value:
        """Append the sum of a value of the output's shape down to the shape of an input that was broadcast."""
        return self.write.sum_to(value, self.out, self.shape(slot))
