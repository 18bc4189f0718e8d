"""The first score of Mellor et al.: how much the derivatives of different samples by the input resemble each other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.proxies.finite import check_output
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.proxies.reverse import append_gradient

_K = 1e-5
"""What the published code adds to eigenvalues."""
_COLUMNS = 2**16
"""Entries of each sample that are made float64 at once."""
_ROUNDING = 1e-6
"""Entries of a derivative that differ by less than this share of their mean are equal but for float32's rounding."""
_PICKS = frozenset({"Gather", "GatherND", "GatherElements", "EmbedLayerNormalization"})
_SIZES = frozenset({"Shape", "Size"})


class Jacov(Proxy):
    """-sum over i of log(v_i + k) + 1 / (v_i + k), with v the eigenvalues of the derivatives' correlation.

    J is `[samples, entries]`: the derivative of the sum of all outputs by the entries of each sample's input, which
    goes through the statistics of the minibatch too. Its rows are correlated with each other (`[samples, samples]`,
    float64); k is 1e-5. Derivatives by several float inputs stand side by side. Integers have none: for them it is
    what they pick out of an embedding that is differentiated by, or the first floats that are made of them.

    What it cannot say: where a sample has no derivative at all, or the same one in all entries, its correlation is
    undefined and so is the score, as in zero-cost-nas, which gives NaN.

    Source: Mellor, Turner, Storkey, Crowley: Neural Architecture Search without Training, 2020, arXiv 2006.04647 v1;
    in this form in Abdelfattah et al., ICLR 2021, arXiv 2101.08134.
    """

    name: ClassVar[str] = "jacov"
    summary: ClassVar[str] = "how little the derivatives of samples by the input are correlated"
    source: ClassVar[str] = "Mellor et al., 2020, arXiv:2006.04647v1"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Append the derivative by each input, or by what integers pick."""
        prepared.check_minibatch()
        values = list(differentiated_by(prepared))
        if not values:
            raise UnsupportedError(
                f"{prepared.name}: no input differs between samples, so there is nothing to derive by"
            )
        self._axes = [_axis(prepared, value) for value in values]
        gradients = append_gradient(prepared.graph, [prepared.output], values, prepared.name)
        self._names = [str(gradient.name) for gradient in gradients]
        return [*self._names, str(prepared.output.name)]

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the score of the derivatives."""
        check_output(prepared, fetched)
        rows = [
            np.moveaxis(fetched[name], axis, 0).reshape(prepared.batch, -1)
            for name, axis in zip(self._names, self._axes, strict=True)
        ]
        return jacov(correlation(rows, prepared.name))


def jacov(matrix: Array) -> float:
    """Return the score of a correlation matrix."""
    v = np.linalg.eigvalsh(matrix)
    return float(-np.sum(np.log(v + _K) + 1 / (v + _K)))


def correlation(parts: Sequence[Array], name: str) -> Array:
    """Return the correlation of rows, `[samples, samples]` float64; parts: what rows consist of, side by side.

    Raises UndefinedError where a row has one number only, or some that is not finite.
    """
    size = sum(part.shape[1] for part in parts)
    samples = parts[0].shape[0]
    mean = np.sum([part.sum(axis=1, dtype=np.float64) for part in parts], axis=0) / size
    covariance = np.zeros((samples, samples))
    for part in parts:
        for start in range(0, part.shape[1], _COLUMNS):
            centred = part[:, start : start + _COLUMNS].astype(np.float64) - mean[:, None]
            covariance += centred @ centred.T
    if not np.isfinite(covariance).all():
        raise UndefinedError(f"{name}: the derivative by the input is not finite")
    deviation = np.sqrt(np.diag(covariance))
    still = np.flatnonzero(deviation <= _ROUNDING * np.abs(mean) * math.sqrt(size))
    if len(still):
        raise UndefinedError(
            f"{name}: the derivative by the input is the same in all entries of {len(still)} of {samples} samples, "
            f"such as 0, so that its correlation with that of others is undefined"
        )
    matrix: Array = covariance / deviation[:, None] / deviation[None, :]
    return matrix


def differentiated_by(prepared: Prepared) -> Iterator[ir.Value]:
    """Yield the float inputs in which samples differ, and for the integer ones what is picked by them."""
    whole = [value for value in prepared.inputs if value.dtype not in FLOATS]
    yield from (value for value in prepared.inputs if value.dtype in FLOATS)
    if whole:
        yield from _made_of(prepared.graph.graph, whole)


def _made_of(graph: ir.Graph, whole: Sequence[ir.Value]) -> list[ir.Value]:
    """Return the first floats that are made of integers: those picked by them where there are any, else all."""
    integers, floats = set(whole), []
    for node in graph:
        if node.op_type in _SIZES or not any(value in integers for value in node.inputs):
            continue
        for output in node.outputs:
            if output.dtype in FLOATS:
                floats.append(output)
            else:
                integers.add(output)
    picked = [value for value in floats if _is_picked(value)]
    return picked or floats


def _is_picked(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type in _PICKS


def _axis(prepared: Prepared, value: ir.Value) -> int:
    axes = {spec.name: spec.batch_axis for spec in prepared.planned.specs}
    axis = axes.get(str(value.name))
    if axis is None:
        axis = prepared.sample_axis(value)
    if axis is None:
        raise UnsupportedError(f"{prepared.name}: nothing tells along which axis of {value.name!r} the samples lie")
    return axis
