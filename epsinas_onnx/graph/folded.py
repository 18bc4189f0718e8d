"""Finds the layers that a BatchNormalization was folded into, by the exporter's traces and by the graph's shape."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

import onnx_ir as ir

from epsinas_onnx.graph.places import ACTIVATIONS, HEADS, LAYOUT, is_gate, is_head, is_swish, makes_gate
from epsinas_onnx.graph.precision import FLOATS
from epsinas_onnx.graph.rewrite import rank_of
from epsinas_onnx.graph.shapes import known_shape
from epsinas_onnx.graph.static import StaticValues, all_graphs

METADATA = "epsinas.batch_norm"
"""An exporter or `strip` decides with metadata on a layer's node: `folded`, `own` or `doubt`."""
EPSILON_METADATA = "epsinas.batch_norm.epsilon"
"""What was added to the variance, where it is known."""
EPSILON = 1e-5
"""What is added to the variance where folding left no trace of it: PyTorch's default, and the metric's."""
AUTO, NONE, ALL = "auto", "none", "all"
FOLDED_FROM = 8
"""Convolutions with a bias from which a graph without any normalisation counts as one that lost its own."""

_DOUBT = "have a bias and no normalisation, as both folded and never normalised networks have"
_MOST, _MORE = 0.75, 4.0  # of the convolutions without, and over those with, a normalisation behind them

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv"})
_LAYERS = CONVOLUTIONS | {"Gemm", "MatMul"}
_NORMALISATIONS = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization", "GroupNorm", "MeanVarianceNormalization", "LpNormalization", "LRN",
     "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)  # fmt: skip


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
    is added. scaled: whether a stored scale is multiplied. channels: how many there are, along `axis`.
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


@dataclass(frozen=True)
class Finding:
    """A layer, whether a normalisation was folded into it, and why we think so, in words."""

    layer: Layer
    kind: Kind
    why: str

    @property
    def epsilon(self) -> float | None:
        """Return what the exporter recorded that is added to the variance; None where it left no record."""
        for node in self.layer.nodes:
            told = node.metadata_props.get(EPSILON_METADATA)
            recorded = _EPSILON.search(node.metadata_props.get("pkg.torch.onnx.fx_node", ""))
            try:
                if told or recorded:
                    return float(told or recorded[1])  # type: ignore[index]
            except ValueError:
                continue
        return None


def find_folded(model: ir.Model, static: StaticValues, which: str = AUTO) -> list[Finding]:
    """Judge every layer of `model`, in graph order, bodies of If, Loop and Scan included.

    which: `auto`; `none`; `all`, every convolution that is no head and has no normalisation behind it; or a glob over
    the names of nodes, and then exactly those.

    The order of evidence: `which`, metadata `epsinas.batch_norm`, a normalisation that is still there, the layer's
    place (heads and gates never had one), the exporter's own record, names, and last the shape of the graph.
    """
    layers = [layer for graph in all_graphs(model.graph) for layer in _layers(graph, static)]
    if which not in (AUTO, NONE, ALL):
        return [
            Finding(layer, Kind.FOLDED if fnmatchcase(str(layer.node.name), which) else Kind.OWN, f"given: {which}")
            for layer in layers
        ]
    if which == NONE:
        return [Finding(layer, Kind.OWN, "given: none") for layer in layers]
    judge = _Judge(model, static, layers)
    return [judge.of(layer, which) for layer in layers]


def _layers(graph: ir.Graph, static: StaticValues) -> Iterator[Layer]:
    taken: set[ir.Node] = set()
    for node in graph:
        layer = _layer(node, static) or (_affine_alone(node, static) if node not in taken else None)
        if layer is not None:
            taken.update(layer.tail)
            yield layer


def _layer(node: ir.Node, static: StaticValues) -> Layer | None:
    if node.op_type not in _LAYERS or node.domain not in ("", "com.microsoft") or len(node.inputs) < 2:
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
    biased |= "A" in _letters(tail)
    scaled = "M" in _letters(tail)
    return Layer(node, node.outputs[0], tail, end, biased, scaled, channels)


def _affine_alone(node: ir.Node, static: StaticValues) -> Layer | None:
    """Return affine operators that a BatchNorm left where no layer is in front of them."""
    operands = [value for value in node.inputs if value is not None]
    signal = [value for value in operands if value not in static]
    vector = next((value for value in operands if value in static), None)
    if node.op_type not in _LETTERS or len(operands) != 2 or len(signal) != 1 or vector is None:
        return None
    shape, rank = known_shape(vector), rank_of(signal[0])
    if not shape or rank is None or rank < 2 or sum(dim > 1 for dim in shape) != 1 or _is_input(signal[0]):
        return None
    channels = max(shape)
    behind = len(shape) - 1 - shape.index(channels)
    tail, end = _tail(signal[0], static, channels, behind, node)
    named = any(map(_names_batch_norm, _names(node))) or node.metadata_props.get(METADATA) == Kind.FOLDED
    if named and node.op_type == "Mul":
        shifted = [i for i, follower in enumerate(tail) if _LETTERS.get(follower.op_type) == "A"]
        tail = tail[: (shifted or [0])[0] + 1]
        end = tail[-1].outputs[0]
    elif not _NORMALISES.fullmatch(_letters(tail)):
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
_NORMALISES = re.compile("A+M+A")
"""A shift, a scale and a shift: a mean, a deviation and what a normalisation learns."""


def _letters(tail: Sequence[ir.Node]) -> str:
    return "".join(_LETTERS.get(node.op_type, "") for node in tail)


def _is_input(value: ir.Value | None) -> bool:
    """Whether a value is an input of the model up to layout: what is done to it then is preprocessing."""
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in LAYOUT or not node.inputs:
            return False
        value = node.inputs[0]
    return True


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
    if node.domain == "" and node.op_type in ("Identity", "Cast") and node.outputs[0].dtype in FLOATS:
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


class _Judge:
    """Judges layers one by one, with what all of them together tell about the exporter."""

    def __init__(self, model: ir.Model, static: StaticValues, layers: Sequence[Layer]) -> None:
        self.static = static
        self.behind = {layer.node: norm for layer in layers if (norm := _normalisation_behind(layer.end))}
        self.kept = {
            node.op_type if node.op_type in _NORMALISATIONS else "decomposed"
            for graph in all_graphs(model.graph)
            for node in graph
            if node.op_type in _NORMALISATIONS or _centres(node)
        }
        self.proofs = {layer.node: proof for layer in layers if (proof := _proof(layer))}
        self.places = {layer.node: place for layer in layers if (place := self._place(layer))}
        self.gaps = {layer.node: gap for layer in layers if (gap := _gap(layer)) is not None}
        convolutions = [layer for layer in layers if layer.node.op_type in CONVOLUTIONS]
        self.convolutions = [layer.node for layer in convolutions if layer.node not in self.places]
        self.recorded = any("record" in proof for proof in self.proofs.values())
        free = [layer for layer in convolutions if layer.node not in self.places and layer.node not in self.behind]
        self.biased = sum(layer.biased for layer in free)
        self.free, self.normalised = len(free), sum(layer.node in self.behind for layer in convolutions)
        self.active = sum(layer.biased and _is_activated(layer.end, static) for layer in free)
        self.era = _era(free, static)

    def of(self, layer: Layer, which: str) -> Finding:
        node = layer.node
        if node in layer.tail:
            return Finding(layer, Kind.FOLDED, self.proofs.get(node, f"metadata of the node: {Kind.FOLDED}"))
        told = node.metadata_props.get(METADATA)
        if told in set(Kind):
            kind = Kind(told)
            return Finding(layer, kind, f"metadata of the node: {told}" if kind is not Kind.DOUBT else _DOUBT)
        if node in self.behind:
            return Finding(layer, Kind.OWN, f"the normalisation {self.behind[node]!r} is behind it")
        proof = self.proofs.get(node)
        if proof and (node.op_type in _LAYERS - {"MatMul"} or layer.scaled):
            return Finding(layer, Kind.FOLDED, proof)
        if node in self.places:
            return Finding(layer, Kind.OWN, self.places[node])
        if node.op_type not in CONVOLUTIONS:
            return Finding(layer, Kind.OWN, "no convolution, and nothing says that a normalisation was behind it")
        if which == ALL:
            return Finding(layer, Kind.FOLDED, "given: all")
        return self._by_names(layer) or self._by_shape(layer)

    def _by_names(self, layer: Layer) -> Finding | None:
        gap = self.gaps.get(layer.node)
        if gap is not None:
            kind, why = gap
            return Finding(layer, kind, why)
        if not self.proofs:
            return None
        named = sum(node in self.proofs for node in self.convolutions)
        plain = not layer.biased and _is_activated(layer.end, self.static)
        if plain and not self.recorded and named >= _MOST * len(self.convolutions):
            return Finding(layer, Kind.FOLDED, "most convolutions bear traces, and this one too has no bias of its own")
        return Finding(layer, Kind.OWN, "other layers bear traces of folding, and this one bears none")
        return None

    def _by_shape(self, layer: Layer) -> Finding:
        if "MA" in _letters(layer.tail) and not self.kept:
            return Finding(layer, Kind.FOLDED, "a stored scale and shift are behind it, a normalisation's own form")
        if not layer.biased:
            return Finding(layer, Kind.OWN, "it has no bias")
        if self.kept == {"BatchNormalization"} and not self.normalised and self.active >= FOLDED_FROM:
            why = "BatchNormalization is left, but behind none of the convolutions, and those with a bias are activated"
            kind = Kind.FOLDED if _is_activated(layer.end, self.static) else Kind.OWN
            return Finding(layer, kind, why)
        if self.biased < FOLDED_FROM or self.biased < _MOST * self.free or self.biased < _MORE * self.normalised:
            have = f"only {self.biased} of {self.free + self.normalised} convolutions have a bias and no normalisation"
            return Finding(layer, Kind.OWN, have)
        if self.era:
            have = f"{self.biased} of {self.free + self.normalised} convolutions have a bias and no normalisation"
            return Finding(layer, Kind.FOLDED, f"{have}, and {self.era}")
        return Finding(layer, Kind.DOUBT, _DOUBT)

    def _place(self, layer: Layer) -> str | None:
        if is_head(layer.end, self.static):
            return "it is a head: it feeds an output, a softmax or a sigmoid"
        if is_gate(layer.end, self.static) or makes_gate(layer.node.inputs[0], layer.end, self.static):
            return "it is part of a gate: it feeds a sigmoid that multiplies other features"
        return None


def _proof(layer: Layer) -> str | None:
    """Return what an exporter left behind when it folded a normalisation into this layer."""
    for node in layer.nodes:
        record = node.metadata_props
        if "FuseBatchNorm" in record.get("pkg.onnxscript.rewriter.rule_name", ""):
            return "the exporter recorded that it folded a BatchNormalization"
        if any("batchnorm" in record.get(key, "").lower() for key in _SCOPES):
            return "the exporter recorded a BatchNorm module in its place"
    if _NORMALISES.fullmatch(_letters(layer.tail)):
        return "a stored mean, scale and shift are behind it, a normalisation's own form"
    names = [name for node in layer.nodes for name in _names(node)]
    named = next((name for name in names if _names_batch_norm(name)), None)
    if named:
        return f"a BatchNorm gave it the name {named!r}"
    weight, *bias = layer.node.inputs[1:3]
    generated = [value is not None and _GENERATED.match(str(value.name)) for value in (weight, *bias)]
    if layer.node.op_type in CONVOLUTIONS and bias and all(generated):
        return "its weight and bias lost their names, as folding does"
    return None


_SCOPES = ("namespace", "pkg.torch.onnx.class_hierarchy")
_EPSILON = re.compile(r"batch_norm.*, ([0-9.e-]+)\)")  # the last argument of aten's operator
_GENERATED = re.compile(r"onnx::Conv(Transpose)?_\d+")  # torch's older exporter


def _names(node: ir.Node) -> list[str]:
    stored = [value.name for value in node.inputs[1:] if value is not None]
    found = [node.name, *(output.name for output in node.outputs), *stored]
    return [name for name in found if name]


_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


def _names_batch_norm(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    pairs = list(itertools.pairwise(words))
    return (
        "bn" in words or any(word.startswith("batchnorm") for word in words)
        or any(first == "batch" and second.startswith("norm") for first, second in pairs)
    )  # fmt: skip


def _gap(layer: Layer) -> tuple[Kind, str] | None:
    """Tell from the numbers of a Sequential whether something stood between a convolution and its activation."""
    ours = _numbered(layer.node)
    if ours is None:
        return None
    for use in layer.end.uses():
        theirs = _numbered(use.node)
        if theirs is None or theirs[0] != ours[0]:
            continue
        if use.node.op_type not in ACTIVATIONS | HEADS:
            continue
        if theirs[1] == ours[1] + 1:
            return Kind.OWN, f"its activation {use.node.name!r} came right behind it in the module"
        if theirs[1] == ours[1] + 2:
            return Kind.FOLDED, f"the module had something between it and its activation {use.node.name!r}"
    return None


def _numbered(node: ir.Node) -> tuple[str, int] | None:
    """Return the path of the Sequential that a node came from and its number there."""
    scopes = re.findall(r"'([^']*)'", node.metadata_props.get("pkg.torch.onnx.name_scopes", ""))
    path = scopes[-2] if len(scopes) > 1 else str(node.name or "").rpartition("/")[0].rpartition("/")[2]
    parent, dot, number = path.rpartition(".")
    return (parent, int(number)) if dot and number.isdecimal() else None


def _normalisation_behind(value: ir.Value) -> str | None:
    pending, seen = [value], {value}
    while pending:
        for use in pending.pop().uses():
            node = use.node
            if node.op_type in _NORMALISATIONS or _centres(node):
                return str(node.name)
            if node.op_type in ("Identity", "Cast", "Reshape", "Transpose", "Dropout") and use.idx == 0:
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                pending += new
    return None


def _is_activated(end: ir.Value, static: StaticValues) -> bool:
    return any(use.node.op_type in ACTIVATIONS for use in end.uses()) or is_swish(end, static)


def _centres(node: ir.Node) -> bool:
    """Whether a node is the beginning of a decomposed normalisation, x - mean(x)."""
    if node.op_type != "Sub" or len(node.inputs) != 2:
        return False
    value, mean = node.inputs
    producer = None if mean is None else mean.producer()
    return producer is not None and producer.op_type == "ReduceMean" and producer.inputs[0] is value


def _era(layers: Sequence[Layer], static: StaticValues) -> str | None:
    """Return what shows that a network is of a kind that is trained with normalisation, in words."""
    depthwise = sum(
        layer.node.op_type == "Conv" and layer.node.attributes.get_int("group", 1) == layer.channels > 1
        for layer in layers
    )
    if depthwise > 2:
        return f"{depthwise} of them are depthwise"
    swish = sum(
        any(use.node.op_type in ("HardSwish", "Mish") for use in layer.end.uses()) or is_swish(layer.end, static)
        for layer in layers
    )
    if swish > FOLDED_FROM / 2:
        return f"{swish} of them are followed by swish"
    residual = sum(
        any(
            use.node.op_type == "Add" and all(v is not None and v not in static for v in use.node.inputs)
            for use in layer.end.uses()
        )
        for layer in layers
    )
    if residual > 2:
        return f"{residual} of them feed residual sums"
    return None
