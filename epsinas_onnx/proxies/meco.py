"""The MeCo score: how independent the channels of each layer's feature maps are, for one sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.roles import NORMALISATIONS
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.passes.constant_weights import REPLACES
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy
from epsinas_onnx.runtime.blas import single_threaded

_POOLS = frozenset({"AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"})
_JOINS = frozenset({"Add", "Sum", "Concat", "Mul", "Sub"})


class Meco(Proxy):
    """The sum over layers of the smallest eigenvalue of the correlation of their channels.

    For the first sample of the minibatch let F be `[channels, positions]`, the feature map that a layer gives; with
    R = corrcoef(F), `[channels, channels]`, the layer adds min eig(R). As in the published code entries of R that are
    not numbers become 0, so that a layer with a channel that is the same everywhere adds 0; and a layer with no more
    positions than channels adds 0, because its R is singular (there the published code adds what rounding leaves).

    Layers are what a framework has modules for: nodes with a weight, normalisations, activations, pooling, and sums,
    products and concatenations of two signals. The published code looks at every module, at those that hold others too,
    whose result is that of their last one; a graph does not tell them. It feeds one random sample alone, here it is one
    of the minibatch, with whose statistics batches are normalised.

    What it cannot say: late layers of an image network (7 x 7 positions, 512 channels) never count, nor do layers
    without positions, so a network of such layers alone has the score 0.

    Source: Jiang, Wang, Bie: MeCo: Zero-Shot NAS with One Data and Single Forward Pass via Minimum Eigenvalue of
    Correlation, NeurIPS 2023.
    """

    name: ClassVar[str] = "meco"
    summary: ClassVar[str] = "smallest eigenvalue of the correlation of channels, summed over layers"
    source: ClassVar[str] = "Jiang et al., NeurIPS 2023"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Append the first sample of each feature map."""
        looked_at = list(_feature_maps(prepared))
        if not looked_at:
            raise UnsupportedError(f"{prepared.name}: no layer gives a feature map of channels and positions")
        emitter = prepared.emitter
        first = emitter.constant(np.asarray(0, np.int64))
        names = [
            str(emitter.op("Gather", [value, first], axis=0).name)
            for value, shape in looked_at
            if shape[1] < math.prod(shape[2:])
        ]
        prepared.append()
        self._names = names
        return names

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the sum of the smallest eigenvalues."""
        by_channels: dict[int, list[Array]] = {}
        for name in self._names:
            features = fetched[name].astype(np.float64)
            correlation = correlate(features.reshape(features.shape[0], -1))
            if correlation is not None:
                by_channels.setdefault(len(correlation), []).append(correlation)
        with single_threaded():
            return float(sum(np.linalg.eigvalsh(np.stack(same))[:, 0].sum() for same in by_channels.values()))


def correlate(features: Array) -> Array | None:
    """Return the correlation of rows, None where one of them does not vary or is not finite: its smallest is then 0."""
    with np.errstate(all="ignore"):
        centred = features - features.mean(axis=1, keepdims=True)
        norms = np.sqrt((centred * centred).sum(axis=1, keepdims=True))
    scale = np.abs(features).max(initial=0.0)
    if not np.isfinite(norms).all() or (norms <= 1e-7 * scale).any():
        return None
    centred /= norms
    product: Array = centred @ centred.T
    return product


def _feature_maps(prepared: Prepared) -> Iterator[tuple[ir.Value, tuple[int, ...]]]:
    layers = set(prepared.layers)
    bent = {activation.node for activation in prepared.activations}
    inside = {node for activation in prepared.activations for node in activation.gate}
    for node in prepared.graph.graph:
        value = node.outputs[0]
        shape = known_shape(value)
        if shape is None or len(shape) < 3 or shape[0] != prepared.batch or value in prepared.static or node in inside:
            continue
        module = node in layers or node in bent or node.op_type in NORMALISATIONS | _POOLS or REPLACES in node.meta
        if module or (node.op_type in _JOINS and _joins(node, prepared)):
            yield value, shape


def _joins(node: ir.Node, prepared: Prepared) -> bool:
    """Whether a node of the user's graph puts two signals together."""
    own = not str(node.name).startswith("epsinas.")
    return own and sum(value is not None and value not in prepared.static for value in node.inputs) > 1
