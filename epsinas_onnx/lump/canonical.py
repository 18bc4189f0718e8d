"""Owns a digest of what a lowered graph computes; names, the order of nodes and that of two terms leave it as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.traversal import RANDOM
from epsinas_onnx.lump.graph import Body, Node
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.lump.value import Array, Lumped, Tensor

_LENGTH = 16
"""Bytes of a digest."""
_COMMUTES = frozenset({("", "Add")})
"""Operators that give the same, to the bit, with their operands the other way round."""
_SIMPLE = frozenset(
    {ir.AttributeType.INT, ir.AttributeType.INTS, ir.AttributeType.FLOAT, ir.AttributeType.FLOATS,
     ir.AttributeType.STRING, ir.AttributeType.STRINGS, ir.AttributeType.TENSOR}
)  # fmt: skip
"""Types of attributes whose values are numbers and text."""


def digest_of(
    lowered: LumpedModel, outputs: Sequence[str], feeds: Mapping[str, Array], axes: Mapping[str, int],
    weights: Sequence[float], settings: object,
) -> bytes | None:  # fmt: skip
    """Return a digest that is equal for graphs which compute the same outputs of the same arrays, bit for bit.

    outputs: names of those that are compared, in order. feeds: the minibatch; axes: along which samples lie in it.
    weights: the constants. settings: whatever else the result depends on; its `repr` counts.

    None where a graph draws random numbers of its own.
    """
    watched = [value for pair in lowered.observed for value in pair]  # in any order, like guards
    values = [*(lowered.outputs[name] for name in outputs), *watched, *lowered.context.guards]
    tensors = [lowered.context.canonical(value) for value in values]
    try:
        digests = _Digests(lowered, lowered.fed(feeds), axes, weights)
        digests.walk(lowered.graph.live_nodes(tensors))
    except _Unknown:
        return None
    found = [(digests.of(tensor), _form(value)) for tensor, value in zip(tensors, values, strict=True)]
    return _hash(repr((found[: len(outputs)], sorted(map(repr, found[len(outputs) :])), settings)).encode())


class _Unknown(Exception):
    """Raised for a node of which nobody can tell what it gives."""


class _Digests:
    """Digests of tensors, each of how it is made and of what."""

    def __init__(
        self, lowered: LumpedModel, fed: Mapping[str, Array], axes: Mapping[str, int], weights: Sequence[float]
    ) -> None:
        graph = lowered.graph
        self._stored, self._derived = graph.initializers, graph.derived
        self._probes = [np.full(lowered.constants, weight, np.float32) for weight in (*weights, 1.0)]
        self._depth = 0
        self._versions = repr(sorted(graph.imports.items())).encode()
        self._known: dict[Tensor | None, bytes] = {None: bytes(_LENGTH)}
        for tensor in graph.inputs:
            self._known[tensor] = _of_arrays(repr(("input", axes.get(tensor.name))), [fed[tensor.name]])

    def of(self, tensor: Tensor | None) -> bytes:
        """Return the digest of a tensor that is stored, fed, or made by a node that was walked."""
        found = self._known.get(tensor)
        if found is None:
            assert tensor is not None
            made = self._derived.get(tensor)
            arrays = [self._stored[tensor]] if made is None else [made(probe) for probe in self._probes]
            found = self._known[tensor] = _of_arrays(str(tensor.dtype), arrays)
        return found

    def walk(self, nodes: Iterable[Node]) -> None:
        """Take in nodes in order; raises _Unknown for one that gives something else each time."""
        for node in nodes:
            if node.op_type in RANDOM:
                raise _Unknown
            inputs = [self.of(tensor) for tensor in node.inputs]
            if (node.domain, node.op_type) in _COMMUTES:
                inputs.sort()
            own = f"{node.domain}:{node.op_type} {len(inputs)}".encode()
            if node.attributes:
                own += repr(
                    [(name, self._attribute(node.attributes[name])) for name in sorted(node.attributes)]
                ).encode()
            made = _hash(b"".join((own, self._versions, *inputs)))  # each input's digest is as long as the others
            for index, tensor in enumerate(node.outputs):
                self._known[tensor] = made if index == 0 else _hash(b"%s%d" % (made, index))

    def _attribute(self, value: Any) -> Any:
        """Return what tells the value of an attribute from others."""
        if isinstance(value, ir.Attr):
            if value.type not in _SIMPLE:
                raise _Unknown
            value = value.value.numpy() if value.type == ir.AttributeType.TENSOR else value.value
        if isinstance(value, Body):
            return self._body(value)
        return _of_arrays("", [value]) if isinstance(value, np.ndarray) else value

    def _body(self, body: Body) -> bytes:
        self._depth += 1
        for index, tensor in enumerate(body.inputs):
            self._known[tensor] = _hash(b"%d:%d" % (self._depth, index))
        self.walk(body.nodes)
        self._depth -= 1
        return _hash(repr([self.of(tensor) for tensor in body.outputs]).encode())


def _form(value: Lumped) -> object:
    """Return which entries of a value stand for which."""
    parts = None if value.parts is None else [
        (part.size, part.count, None if part.is_one or part.is_discrete else part.labels.tobytes())
        for part in value.parts
    ]  # fmt: skip
    return parts, value.varied


def _of_arrays(kind: str, arrays: Sequence[Array]) -> bytes:
    digest = hashlib.blake2b(kind.encode(), digest_size=_LENGTH)
    for array in arrays:
        digest.update(repr((array.dtype.str, array.shape)).encode())
        digest.update(repr(array.tolist()).encode() if array.dtype.kind == "O" else array.tobytes())
    return digest.digest()


def _hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_LENGTH).digest()
