"""Owns the lowered graph while it is built: nodes, stored tensors, shared sub-expressions and bodies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from epsinas_onnx.lump.unlumpable import TooDeep
from epsinas_onnx.lump.value import Array, Dims, Tensor

_FOLDED_SIZE = 2**20
"""Stored tensors are laid out anew while the graph is built up to this many entries."""
_DEEPEST = 8
"""Bodies inside of bodies that are lowered: a body is lowered twice for each time that the one around it is."""
_PLAIN = frozenset({int, float, str, list, tuple})
"""Types of attributes that are no object of onnx-ir."""


class Kind:
    """Nodes that differ in their tensors' names alone, in whatever graphs. made: what was worked out for one of them.

    They have one operator, operands of the same shapes, of which the same numbers are stored, and the same attributes.
    """

    def __init__(self) -> None:
        self.made: dict[Any, Any] = {}


@dataclass(eq=False, slots=True)
class Node:
    """One node of the lowered graph.

    source: the user's node that it was made for. kind: what it is one of, None where nobody knows. bodies: attributes
    that are one.
    """

    op_type: str
    domain: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any]
    source: str
    kind: Kind | None = None
    bodies: Mapping[str, Body] = field(init=False)

    def __post_init__(self) -> None:
        self.bodies = {name: value for name, value in self.attributes.items() if isinstance(value, Body)}


@dataclass(eq=False)
class Body:
    """A graph inside a node (a branch, or what a loop repeats); it may read every tensor of the graphs around it."""

    inputs: list[Tensor] = field(default_factory=list)
    outputs: list[Tensor] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    seen: dict[Any, tuple[Tensor, ...]] = field(default_factory=dict)


class Operation(NamedTuple):
    """What a node does. key: what tells it from others, None for one that is never the same.

    outputs: shapes and dtypes. attributes: int, float, str, lists of these, an array, an onnx-ir attribute, or a Body.
    """

    key: tuple[Hashable, ...] | None
    op_type: str
    domain: str
    outputs: tuple[tuple[Dims | None, ir.DataType], ...]
    attributes: Mapping[str, Any]


class Appender(ABC):
    """Takes nodes and stored tensors."""

    @abstractmethod
    def append(
        self, operation: Operation, inputs: tuple[Tensor | None, ...], kind: Kind | None = None
    ) -> tuple[Tensor, ...]:
        """Append a node, unless there is one that does the same to the same inputs; return the outputs."""

    @abstractmethod
    def stored(self, key: Hashable, array: Array, dtype: ir.DataType | None) -> Tensor:
        """Return a stored tensor by the key of `stored_key`."""

    def op(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        shape: Dims | None,
        dtype: ir.DataType | None = None,
        domain: str = "",
        **attributes: Any,
    ) -> Tensor:
        """Append a node with one output and return it; its dtype is that of the first input unless given."""
        if dtype is None:
            assert inputs[0] is not None
            dtype = inputs[0].dtype
        return self.ops(op_type, inputs, [(shape, dtype)], domain, attributes)[0]

    def ops(
        self,
        op_type: str,
        inputs: Sequence[Tensor | None],
        outputs: Sequence[tuple[Dims | None, ir.DataType]],
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
        share: bool = True,
    ) -> tuple[Tensor, ...]:
        """Append a node with any number of outputs; share: whether it is deterministic."""
        attributes = attributes or {}
        share = share and not any(isinstance(value, Body) for value in attributes.values())
        key = (domain, op_type, len(outputs), *attributes_key(attributes)) if share else None
        return self.append(Operation(key, op_type, domain, tuple(outputs), attributes), tuple(inputs))

    def constant(self, array: Array, dtype: ir.DataType | None = None) -> Tensor:
        """Return a stored tensor; equal arrays are stored once. dtype: what it counts as, that of the array if None."""
        return self.stored(stored_key(array, dtype), array, dtype)


class LoweredGraph(Appender):
    """Collects nodes in topological order; a node that was there before is not made again.

    imports: operator sets, domain to version; those of the user's model, because his operators are copied as they are.
    initializers: stored tensors. derived: stored tensors that are computed from the constants when these are known.
    chains: what `evaluate_lumped.fused` made of the nodes, by what was asked for.
    """

    def __init__(self, imports: Mapping[str, int]) -> None:
        self.imports = dict(imports)
        self.opset = self.imports.get("", 1)
        self.inputs: list[Tensor] = []
        self.initializers: dict[Tensor, Array] = {}
        self.derived: dict[Tensor, Callable[[Array], Array]] = {}
        self.source = ""
        self._constants: dict[Any, Tensor] = {}
        self._scopes = [Body()]
        self._base: dict[Tensor, Tensor] = {}
        self._count = 0
        self._live: dict[tuple[Any, ...], list[Node]] = {}
        self.chains: dict[Any, Any] = {}

    @property
    def nodes(self) -> list[Node]:
        """Return the nodes of the main graph."""
        return self._scopes[0].nodes

    def input(self, name: str, shape: Dims, dtype: ir.DataType) -> Tensor:
        """Append a graph input."""
        tensor = Tensor(name, shape, dtype)
        self.inputs.append(tensor)
        return tensor

    def stored(self, key: Hashable, array: Array, dtype: ir.DataType | None) -> Tensor:
        """Return a stored tensor by the key of `stored_key`."""
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = Tensor(
                self._fresh("constant"), array.shape, dtype or ir.DataType.from_numpy(array.dtype)
            )
            self.initializers[found] = array
        return found

    def derive(self, make: Callable[[Array], Array], shape: Dims, dtype: ir.DataType) -> Tensor:
        """Return a tensor that is stored once the constants are known: `make` of them."""
        tensor = Tensor(self._fresh("derived"), shape, dtype)
        self.derived[tensor] = make
        return tensor

    def laid_out(self, tensor: Tensor, shape: Dims, change: Callable[[Array, Dims], Array]) -> Tensor | None:
        """Return a stored tensor, reshaped or stretched now; None where it is computed in the graph, or large."""
        if math.prod(shape) > _FOLDED_SIZE:
            return None
        array = self.initializers.get(tensor)
        if array is not None:
            return self.constant(change(array, shape), tensor.dtype)
        make = self.derived.get(tensor)
        if make is None:
            return None
        key = ("derived", tensor, change, shape)
        if key not in self._constants:
            inner = make
            self._constants[key] = self.derive(lambda weight: change(inner(weight), shape), shape, tensor.dtype)
        return self._constants[key]

    def append(
        self, operation: Operation, inputs: tuple[Tensor | None, ...], kind: Kind | None = None
    ) -> tuple[Tensor, ...]:
        """Append a node, unless there is one that does the same to the same inputs; return the outputs."""
        key, op_type, domain, outputs, attributes = operation
        if key is not None:
            for scope in self._scopes:
                found = scope.seen.get((key, inputs))
                if found is not None:
                    return found
        made = tuple([Tensor(self._fresh(op_type), shape, dtype) for shape, dtype in outputs])
        scope = self._scopes[-1]
        scope.nodes.append(Node(op_type, domain, inputs, made, attributes, self.source, kind))
        if key is not None:
            scope.seen[key, inputs] = made
        return made

    def outermost(
        self, op_type: str, inputs: Sequence[Tensor], shape: Dims, dtype: ir.DataType, **attributes: Any
    ) -> Tensor:
        """Append a node to the main graph, in front of the one whose body is open, so that all bodies see it."""
        scopes, self._scopes = self._scopes, self._scopes[:1]
        made = self.op(op_type, inputs, shape, dtype, **attributes)
        self._scopes = scopes
        return made

    def reshape(self, tensor: Tensor, shape: Dims) -> Tensor:
        """Return the same data in another shape; reshapes of reshapes become one."""
        if tensor.shape == shape:
            return tensor
        base = self._base.get(tensor, tensor)
        if base.shape == shape:
            return base
        stored = self.laid_out(tensor, shape, np.reshape)
        if stored is not None:
            return stored
        if 0 in shape:  # in a Reshape before operator set 14 a 0 stands for the size before
            return self.constant(np.zeros(shape, tensor.dtype.numpy()))
        result = self.op("Reshape", [base, self.constant(np.asarray(shape, np.int64))], shape)
        self._base[result] = base
        return result

    def open(self) -> Body:
        """Begin a body: what is appended until `close` belongs to it."""
        if len(self._scopes) > _DEEPEST:
            raise TooDeep
        self._scopes.append(Body())
        return self._scopes[-1]

    def discard(self) -> None:
        """Forget the body that was opened last, and all that was appended to it."""
        self._scopes.pop()

    @property
    def in_body(self) -> bool:
        """Whether a body is open, whose tensors cannot be seen from outside."""
        return len(self._scopes) > 1

    def close(self, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> Body:
        """End the body that was opened last."""
        body = self._scopes.pop()
        body.inputs, body.outputs = list(inputs), list(outputs)
        return body

    def placeholder(self, label: str, shape: Dims | None, dtype: ir.DataType) -> Tensor:
        """Return a tensor that a body is given by its node."""
        return Tensor(self._fresh(label), shape, dtype)

    def _fresh(self, label: str) -> str:
        self._count += 1
        return f"{self.source}/{label}.{self._count}" if self.source else f"epsinas/{label}.{self._count}"

    def live_nodes(self, outputs: Sequence[Tensor]) -> list[Node]:
        """Return the nodes of the main graph that the outputs need, in order."""
        key = (*outputs, len(self.nodes))  # a graph is asked several times for the same outputs
        if key not in self._live:
            self._live[key] = needed_nodes(self.nodes, outputs)
        return self._live[key]


def needed_nodes(nodes: Sequence[Node], outputs: Iterable[Tensor], known: Collection[Node] = ()) -> list[Node]:
    """Return the nodes that some tensors need, in order. known: nodes that need no operands."""
    needed = set(outputs)
    live = []
    for node in reversed(nodes):
        if not needed.isdisjoint(node.outputs):
            live.append(node)
            if node not in known:
                needed.update(reads(node))
    live.reverse()
    return live


def reads(node: Node) -> list[Tensor]:
    """Return what a node takes, what its bodies take from outside included."""
    found = [tensor for tensor in node.inputs if tensor is not None]
    for body in node.bodies.values():
        found += body.outputs
        for inner in body.nodes:
            found += reads(inner)
    return found


def stored_key(array: Array, dtype: ir.DataType | None) -> Hashable:
    """Return what tells stored tensors apart."""
    return array.dtype, array.shape, array.tobytes(), dtype


def attributes_key(attributes: Mapping[str, Any]) -> tuple[Hashable, ...]:
    """Return what tells attributes apart: their values, or the object where that has none that can be compared."""
    return tuple(_keys(attributes)) if attributes else ()


def told_apart(value: Any) -> Hashable:
    """Return a number, a text or a list of these so that only equal ones are equal: 0.0 is no -0.0."""
    if isinstance(value, (list, tuple)):
        return tuple([item or repr(item) for item in value])
    made: Hashable = value or repr(value)
    return made


def _keys(attributes: Mapping[str, Any]) -> Iterable[Hashable]:
    for name in sorted(attributes):
        value = attributes[name]
        if type(value) in _PLAIN:  # asking whether something is an onnx-ir attribute takes longer than all else here
            yield name, told_apart(value)
        elif isinstance(value, ir.Attr):
            inner = value.value
            yield name, told_apart(inner) if isinstance(inner, (list, tuple, int, float, str)) else id(value)
        elif isinstance(value, np.ndarray):
            yield name, value.shape, value.tobytes()
        else:
            yield name, tuple(value) if isinstance(value, list) else value
