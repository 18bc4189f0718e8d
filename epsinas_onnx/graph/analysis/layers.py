"""Finds layers with stored weights, and the affine operators behind them that a normalisation may have left."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import onnx_ir as ir

from epsinas_onnx.graph.analysis.layer_uses import is_input
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.traversal import StaticValues

METADATA = "epsinas.batch_norm"
"""An exporter or `strip` decides with metadata on a layer's node: `folded`, `own` or `doubt`."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv"})
LAYERS = CONVOLUTIONS | {"Gemm", "MatMul"}


class Kind(StrEnum):
    """What was found out about a layer; metadata `epsinas.batch_norm` holds one of these."""

    FOLDED = "folded"
    OWN = "own"
    DOUBT = "doubt"


@dataclass(frozen=True)
class Layer:
    """A layer with stored weights and the affine operators behind it that belong to it, or such operators alone.

    node: the layer, or the first of the affine operators. raw: what the first of them reads. tail: the nodes that
    multiply or shift it by stored vectors, in order. end: what the last of them gives. biased: whether a stored bias
    is added. scaled: whether a stored scale is multiplied. channels: how many there are, along `axis`; -1 is the last.
    """

    node: ir.Node
    raw: ir.Value
    tail: tuple[ir.Node, ...]
    end: ir.Value
    biased: bool
    scaled: bool
    channels: int
    axis: int = 1

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """Return the layer's node and its tail."""
        return tuple(dict.fromkeys((self.node, *self.tail)))

    @property
    def is_convolution(self) -> bool:
        """Whether this is a convolution, rather than a matrix product or affine operators alone."""
        return self.node.op_type in CONVOLUTIONS


def find_layers(graph: ir.Graph, static: StaticValues, ranks: Ranks) -> Iterator[Layer]:
    """Yield the layers of a graph, in order."""
    taken: set[ir.Node] = set()
    for node in graph:
        layer = _layer(node, static) or (_affine_alone(node, static, ranks) if node not in taken else None)
        if layer is not None:
            taken.update(layer.tail)
            yield layer


def _layer(node: ir.Node, static: StaticValues) -> Layer | None:
    if node.op_type not in LAYERS or node.domain not in ("", "com.microsoft") or len(node.inputs) < 2:
        return None
    x, weight = node.inputs[:2]
    if weight is None or weight not in static or x is None or x in static or weight.dtype not in FLOATS:
        return None
    channels = _channels(node, weight)
    if channels is None:
        return None
    behind = None if node.op_type in CONVOLUTIONS else 0
    tail, end = _tail(node.outputs[0], static, channels, behind)
    biased = len(node.inputs) > 2 and node.inputs[2] is not None
    biased |= "A" in letters(tail)
    scaled = "M" in letters(tail)
    axis = -1 if node.op_type == "MatMul" else 1
    return Layer(node, node.outputs[0], tail, end, biased, scaled, channels, axis)


def _affine_alone(node: ir.Node, static: StaticValues, ranks: Ranks) -> Layer | None:
    """Return affine operators that a BatchNorm left where no layer is in front of them."""
    if node.op_type not in _LETTERS:
        return None
    operands = [value for value in node.inputs if value is not None]
    signal = [value for value in operands if value not in static]
    vector = next((value for value in operands if value in static), None)
    if len(operands) != 2 or len(signal) != 1 or vector is None:
        return None
    shape = known_shape(vector)
    if not shape or sum(dim > 1 for dim in shape) != 1 or is_input(signal[0], static):
        return None
    channels = max(shape)
    behind = len(shape) - 1 - shape.index(channels)
    tail, end = _tail(signal[0], static, channels, behind, node)
    named = any(map(names_batch_norm, names_of(node))) or node.metadata_props.get(METADATA) == Kind.FOLDED
    if named and node.op_type == "Mul":
        shifted = [i for i, follower in enumerate(tail) if _LETTERS.get(follower.op_type) == "A"]
        tail = tail[: (shifted or [0])[0] + 1]
        end = tail[-1].outputs[0]
    elif not NORMALISES.fullmatch(letters(tail)):
        return None
    rank = ranks.of(signal[0])
    if rank is None or rank < behind + 2:  # axis 0 holds the samples
        return None
    return Layer(node, signal[0], tail, end, True, True, channels, rank - 1 - behind)


def _tail(
    value: ir.Value, static: StaticValues, channels: int, behind: int | None, first: ir.Node | None = None
) -> tuple[tuple[ir.Node, ...], ir.Value]:
    """Return the affine operators behind a value, casts between them included, and what the last of them gives.

    first: the one that they begin with, where the value has other users too.
    """
    tail, pending = ([], []) if first is None else ([first], [])
    end = value if first is None else first.outputs[0]
    reached = end
    while (follower := _affine(reached, static, channels, behind)) is not None:
        reached = follower.outputs[0]
        pending.append(follower)
        if follower.op_type in _LETTERS:
            tail += pending
            pending, end = [], reached
    return tuple(tail), end


_LETTERS = {"Add": "A", "Sub": "A", "Mul": "M", "Div": "M"}
NORMALISES = re.compile("A+M+A")
"""A shift, a scale and a shift: a mean, a deviation and what a normalisation learns."""


def letters(tail: Sequence[ir.Node]) -> str:
    """Return a letter for each affine operator: A adds, M multiplies."""
    return "".join(_LETTERS.get(node.op_type, "") for node in tail)


def _channels(node: ir.Node, weight: ir.Value) -> int | None:
    shape = known_shape(weight)
    if shape is None or len(shape) < 2:
        return None
    match node.op_type:
        case "ConvTranspose":
            return shape[1] * node.attributes.get_int("group", 1)
        case "Gemm":
            return shape[0] if node.attributes.get_int("transB", 0) else shape[1]
        case "MatMul":
            return shape[1] if len(shape) == 2 else None
    return shape[0]


def _affine(value: ir.Value, static: StaticValues, channels: int, behind: int | None) -> ir.Node | None:
    """Return the only user of `value` where it multiplies it by, or adds to it, a stored vector of its channels.

    behind: how many axes follow that of the channels; None for a convolution, whose rank tells.
    """
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or channels == 1:
        return None
    node = uses[0].node
    if node.domain == "" and (node.op_type == "Identity" or _casts_to_float(node)):
        return node
    if node.domain != "" or node.op_type not in _LETTERS or len(node.inputs) != 2:
        return None
    other = node.inputs[1 - uses[0].idx]
    if other is None or other not in static or (node.op_type in ("Sub", "Div") and uses[0].idx == 1):
        return None
    shape = known_shape(other)
    if static.stored(other) is None or shape is None or sum(dim > 1 for dim in shape) != 1 or channels not in shape:
        return None
    follow = len(shape) - 1 - shape.index(channels)
    return node if follow == behind or (behind is None and follow in (1, 2, 3)) else None


def _casts_to_float(node: ir.Node) -> bool:
    return node.op_type == "Cast" and node.attributes.get_int("to", 0) in FLOATS


def names_of(node: ir.Node) -> list[str]:
    """Return the names of a node, its outputs and the stored tensors that it reads."""
    stored = [value.name for value in node.inputs[1:] if value is not None]
    found = [node.name, *(output.name for output in node.outputs), *stored]
    return [name for name in found if name]


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def names_batch_norm(name: str) -> bool:
    """Whether a name is one that a BatchNormalization gave."""
    lower = name.lower()
    if "bn" not in lower and "norm" not in lower:  # as most names
        return False
    words = [word.lower() for word in _WORDS.findall(name)]
    pairs = list(itertools.pairwise(words))
    return (
        "bn" in words or any(word.startswith("batchnorm") for word in words)
        or any(first == "batch" and second.startswith("norm") for first, second in pairs)
    )  # fmt: skip
