"""Finds the layers that a BatchNormalization was folded into, by the exporter's traces and by the graph's shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property

import onnx_ir as ir

from epsinas_onnx.graph.analysis.exporter_traces import gap, proof, recorded_epsilon
from epsinas_onnx.graph.analysis.layer_uses import ACTIVATIONS, is_gate, is_head, is_swish, makes_gate
from epsinas_onnx.graph.analysis.layers import LAYERS, METADATA, Kind, Layer, find_layers, letters
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.traversal import StaticValues, all_graphs

EPSILON = 1e-5
"""What is added to the variance where folding left no trace of it: PyTorch's default, and the metric's."""
AUTO, NONE, ALL = "auto", "none", "all"
FOLDED_FROM = 8
"""Convolutions with a bias from which a graph without any normalisation counts as one that lost its own."""

_DOUBT = "have a bias and no normalisation, as both folded and never normalised networks have"
_MOST, _MORE = 0.75, 4.0  # of the convolutions without, and over those with, a normalisation behind them

_NORMALISATIONS = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization", "GroupNorm", "MeanVarianceNormalization", "LpNormalization", "LRN",
     "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"}
)  # fmt: skip


@dataclass(frozen=True)
class FoldedNorm:
    """A layer, whether a normalisation was folded into it, and why we think so, in words."""

    layer: Layer
    kind: Kind
    why: str

    @property
    def epsilon(self) -> float | None:
        """Return what the exporter recorded that is added to the variance; None where it left no record."""
        return recorded_epsilon(self.layer)


def find_folded(model: ir.Model, static: StaticValues, ranks: Ranks, which: str = AUTO) -> list[FoldedNorm]:
    """Judge every layer of `model`, in graph order, bodies of If, Loop and Scan included.

    which: `auto`; `none`; `all`, every convolution that is no head and has no normalisation behind it; or a glob over
    the names of nodes, and then exactly those.

    The order of evidence: `which`, metadata `epsinas.batch_norm`, a normalisation that is still there, the layer's
    place (heads and gates never had one), the exporter's own record, names, and last the shape of the graph.
    """
    layers = [layer for graph in all_graphs(model.graph) for layer in find_layers(graph, static, ranks)]
    if which not in (AUTO, NONE, ALL):
        return [
            FoldedNorm(layer, Kind.FOLDED if fnmatchcase(str(layer.node.name), which) else Kind.OWN, f"given: {which}")
            for layer in layers
        ]
    if which == NONE:
        return [FoldedNorm(layer, Kind.OWN, "given: none") for layer in layers]
    judge = _Judge(model, static, layers)
    return [judge.of(layer, which) for layer in layers]


class _Judge:
    """Judges layers one by one, with what all of them together tell about the exporter.

    That is looked for when a layer is met that has no normalisation behind it, and in many networks none is.
    """

    def __init__(self, model: ir.Model, static: StaticValues, layers: Sequence[Layer]) -> None:
        self.model, self.static, self.layers = model, static, layers
        self._proof, self._place = cache(proof), cache(lambda layer: _place(layer, static))
        self.behind = {layer.node: norm for layer in layers if (norm := _normalisation_behind(layer.end))}

    @cached_property
    def kept(self) -> set[str]:
        """The kinds of normalisations that the graph has."""
        return {
            node.op_type if node.op_type in _NORMALISATIONS else "decomposed"
            for graph in all_graphs(self.model.graph)
            for node in graph
            if node.op_type in _NORMALISATIONS or _centres(node)
        }

    @cached_property
    def proofs(self) -> dict[ir.Node, str]:
        """What the exporter left behind, by layer."""
        return {layer.node: told for layer in self.layers if (told := self._proof(layer))}

    @cached_property
    def recorded(self) -> bool:
        """Whether some of it is a record."""
        return any("record" in proof for proof in self.proofs.values())

    @cached_property
    def places(self) -> dict[ir.Node, str]:
        """Why layers never had a normalisation, by where they are."""
        return {layer.node: place for layer in self.layers if (place := self._place(layer))}

    @cached_property
    def convolutions(self) -> list[Layer]:
        """The convolutions that may have had one."""
        return [layer for layer in self.layers if layer.is_convolution and layer.node not in self.places]

    @cached_property
    def free(self) -> list[Layer]:
        """Those of them that have none."""
        return [layer for layer in self.convolutions if layer.node not in self.behind]

    @cached_property
    def normalised(self) -> int:
        """How many convolutions have one."""
        return sum(layer.is_convolution and layer.node in self.behind for layer in self.layers)

    @cached_property
    def biased(self) -> int:
        """How many of those without have a bias."""
        return sum(layer.biased for layer in self.free)

    @cached_property
    def active(self) -> int:
        """How many of these are activated."""
        return sum(layer.biased and _is_activated(layer.end, self.static) for layer in self.free)

    def of(self, layer: Layer, which: str) -> FoldedNorm:
        node = layer.node
        if node in layer.tail:
            return FoldedNorm(layer, Kind.FOLDED, self._proof(layer) or f"metadata of the node: {Kind.FOLDED}")
        told = node.metadata_props.get(METADATA)
        if told in set(Kind) and (which != ALL or told == Kind.FOLDED):
            kind = Kind(told)
            return FoldedNorm(layer, kind, f"metadata of the node: {told}" if kind is not Kind.DOUBT else _DOUBT)
        if node in self.behind:
            return FoldedNorm(layer, Kind.OWN, f"the normalisation {self.behind[node]!r} is behind it")
        found = self._proof(layer)
        if found and (node.op_type in LAYERS - {"MatMul"} or layer.scaled):
            return FoldedNorm(layer, Kind.FOLDED, found)
        place = self._place(layer)
        if place is not None:
            return FoldedNorm(layer, Kind.OWN, place)
        if not layer.is_convolution:
            return FoldedNorm(layer, Kind.OWN, "no convolution, and nothing says that a normalisation was behind it")
        if which == ALL:
            return FoldedNorm(layer, Kind.FOLDED, "given: all")
        return self._bynames_of(layer) or self._by_shape(layer)

    def _bynames_of(self, layer: Layer) -> FoldedNorm | None:
        numbered = gap(layer)
        if numbered is not None:
            kind, why = numbered
            return FoldedNorm(layer, kind, why)
        if not self.proofs:
            return None
        named = sum(one.node in self.proofs for one in self.convolutions)
        plain = not layer.biased and _is_activated(layer.end, self.static)
        if plain and not self.recorded and named >= _MOST * len(self.convolutions):
            return FoldedNorm(
                layer, Kind.FOLDED, "most convolutions bear traces, and this one too has no bias of its own"
            )
        return FoldedNorm(layer, Kind.OWN, "other layers bear traces of folding, and this one bears none")

    def _by_shape(self, layer: Layer) -> FoldedNorm:
        if "MA" in letters(layer.tail) and not self.kept:
            return FoldedNorm(layer, Kind.FOLDED, "a stored scale and shift are behind it, a normalisation's own form")
        if not layer.biased:
            return FoldedNorm(layer, Kind.OWN, "it has no bias")
        if self.kept == {"BatchNormalization"} and not self.normalised and self.active >= FOLDED_FROM:
            why = "BatchNormalization is left, but behind none of the convolutions, and those with a bias are activated"
            kind = Kind.FOLDED if _is_activated(layer.end, self.static) else Kind.OWN
            return FoldedNorm(layer, kind, why)
        free, have = len(self.free), "convolutions have a bias and no normalisation"
        have = f"{self.biased} of {free + self.normalised} {have}"
        if self.biased < FOLDED_FROM or self.biased < _MOST * free or self.biased < _MORE * self.normalised:
            return FoldedNorm(layer, Kind.OWN, f"only {have}")
        if self.era:
            return FoldedNorm(layer, Kind.FOLDED, f"{have}, and {self.era}")
        return FoldedNorm(layer, Kind.DOUBT, _DOUBT)

    @cached_property
    def era(self) -> str | None:
        """What shows that the network is of a kind that is trained with normalisation."""
        return _era(self.free, self.static)


def _place(layer: Layer, static: StaticValues) -> str | None:
    """Return why a layer never had a normalisation, by where it is."""
    if is_head(layer.end, static):
        return "it is a head: it feeds an output, a softmax or a sigmoid"
    if is_gate(layer.end, static) or makes_gate(layer.node.inputs[0], layer.end, static):
        return "it is part of a gate: it feeds a sigmoid that multiplies other features"
    return None


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
