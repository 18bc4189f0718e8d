"""The MeCo score: how independent the channels of each layer's feature maps are, for one sample."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.roles import NORMALISATIONS
from epsinas_onnx.graph.passes.constant_weights import REPLACES
from epsinas_onnx.proxies.channels import channel_axis
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

    Layers are nodes with a weight, normalisations, activations, pooling, and sums, products and concatenations of two
    signals. A normalisation by batches does not count beside the layer in front of it, whose correlations it leaves as
    they are, because exporters write it in many ways. The published code looks at every module, at those that hold
    others too, whose result is that of their last one; a graph does not tell them. It feeds one random sample alone,
    here it is one of the minibatch, with whose statistics batches are normalised.

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
        prepared.check_minibatch()
        looked_at = list(_feature_maps(prepared))
        if not looked_at:
            raise UnsupportedError(f"{prepared.name}: no layer gives a feature map of channels and positions")
        emitter = prepared.emitter
        first = emitter.constant(np.asarray(0, np.int64))
        self._axes = {
            str(emitter.op("Gather", [value, first], axis=0).name): axis - 1
            for value, shape, axis in looked_at
            if shape[axis] ** 2 * prepared.batch < math.prod(shape)
        }
        prepared.append()
        return list(self._axes)

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the sum of the smallest eigenvalues."""
        by_channels: dict[int, list[Array]] = {}
        for name, axis in self._axes.items():
            features = np.moveaxis(fetched[name], axis, 0).astype(np.float64)
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


def _feature_maps(prepared: Prepared) -> Iterator[tuple[ir.Value, tuple[int, ...], int]]:
    """Yield what each layer gives, its shape, and the axis of its channels."""
    layers = set(prepared.layers)
    bent = {activation.node for activation in prepared.activations}
    inside = {node for activation in prepared.activations for node in activation.gate}
    for node in prepared.graph.graph:
        value = node.outputs[0]
        if node in inside or value in prepared.static or REPLACES in node.meta:
            continue
        module = node in layers or node in bent or node.op_type in NORMALISATIONS | _POOLS
        if not module and not (node.op_type in _JOINS and _joins(node, prepared)):
            continue
        shape, axis = prepared.shape(value), channel_axis(prepared, value)
        if shape is None or not axis or len(shape) < 3 or shape[0] != prepared.batch:
            continue
        if prepared.sample_axis(value) == 0:  # else its steps of time are as many as there are samples
            yield value, shape, axis


def _joins(node: ir.Node, prepared: Prepared) -> bool:
    """Whether a node of the user's graph puts two signals together."""
    own = not str(node.name).startswith("epsinas.")
    return own and sum(value is not None and value not in prepared.static for value in node.inputs) > 1
