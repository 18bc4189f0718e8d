"""Expressivity and progressivity of AZ-NAS: how evenly the features of each block use their channels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.proxies.channels import channel_axis
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.runtime.blas import single_threaded

_OFFSET = 1e-8
"""What the published code adds inside the logarithm."""


class Expressivity(Proxy):
    """The sum over blocks of the entropy of their features' principal components.

    Features of a block are rows, one for each sample and position, `[samples * positions, channels]`; their covariance
    `[channels, channels]` has eigenvalues l_k, and with p_k = l_k / sum(l) the entropy is -sum p_k log(p_k + 1e-8), at
    most log(channels). The sum is over all blocks.

    The paper takes the cells of its search spaces. A graph does not say what its cells are, so blocks are found in it
    (`blocks`): values that everything flows through, one for each stretch with a layer in it. The stem is one, the head
    is none, and a cell without any layer (identity, pooling) is none either. Channels are found wherever an exporter
    puts them (`channels`).

    What it cannot say: networks with more blocks or more channels have more of it, whatever they are good for; where
    shortcuts go around every block (a U-Net, features that are reused throughout) only few blocks are found.

    Source: Lee and Ham: AZ-NAS: Assembling Zero-Cost Proxies for Network Architecture Search, CVPR 2024,
    arXiv 2403.19232.
    """

    name: ClassVar[str] = "expressivity"
    summary: ClassVar[str] = "entropy of the principal components of each block's features, summed"
    source: ClassVar[str] = "Lee and Ham, CVPR 2024, arXiv:2403.19232"
    fewest: ClassVar[int] = 1

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Append the covariance of each block's features."""
        prepared.check_minibatch()
        covariances = prepared.once("covariances", _append_covariances)
        if len(covariances) < self.fewest:
            raise UnsupportedError(
                f"{prepared.name}: {self.name} takes at least {self.fewest} block(s) that everything flows through, "
                f"and {len(covariances)} were found"
            )
        return [str(value.name) for value in covariances]

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the sum of the entropies."""
        return float(sum(self._entropies(prepared, fetched)))

    def _entropies(self, prepared: Prepared, fetched: Mapping[str, Array]) -> list[float]:
        covariances = prepared.once("covariances", _append_covariances)
        return prepared.once(
            "entropies", lambda _: [entropy(fetched[str(v.name)], prepared.name) for v in covariances]
        )  # fmt: skip


class Progressivity(Expressivity):
    """The smallest increase of that entropy from one block to the next; see `Expressivity` for both.

    min over i of e_(i+1) - e_i, where e_i is the entropy of block i. What it cannot say: it is one difference of two
    blocks, mostly of two with equally many channels, and so the noisiest of the scores.

    Source: Lee and Ham, CVPR 2024, arXiv 2403.19232.
    """

    name: ClassVar[str] = "progressivity"
    summary: ClassVar[str] = "smallest increase of that entropy from one block to the next"
    fewest: ClassVar[int] = 2

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the smallest increase."""
        return float(np.min(np.diff(self._entropies(prepared, fetched))))


def entropy(covariance: Array, name: str = "the model") -> float:
    """Return the entropy of the spectrum of a covariance `[channels, channels]`.

    Raises UndefinedError where it is not finite, or nothing varies.
    """
    if not np.isfinite(covariance).all():
        raise UndefinedError(f"{name}: features of a block are not finite")
    with single_threaded():
        spectrum = np.linalg.eigvalsh(covariance.astype(np.float64))
    total = spectrum.sum()
    if not total > 0:
        raise UndefinedError(f"{name}: the features of a block are the same in all samples and positions")
    shares = np.clip(spectrum, 0, None) / total
    return float(-(shares * np.log(shares + _OFFSET)).sum())


def _append_covariances(prepared: Prepared) -> list[ir.Value]:
    """Append the covariance of the channels of each block's features, `[channels, channels]`.

    Where there are fewer rows than channels it is the product the other way round, `[rows, rows]`, whose eigenvalues
    are the same but for zeros, which add nothing to an entropy.
    """
    emitter = prepared.emitter
    made = []
    for value in prepared.features:
        shape, axis = prepared.shape(value), channel_axis(prepared, value)
        if shape is None or axis is None:
            continue
        channels = shape[axis]
        if not math.prod(shape):
            raise UndefinedError(f"{prepared.name}: the features of a block have no entries")
        order = [axis, *(other for other in range(len(shape)) if other != axis)]
        rows = emitter.reshape(emitter.op("Transpose", [value], perm=order), [channels, -1])
        centred = emitter.op("Sub", [rows, emitter.reduce_mean(rows, [1])])
        count = math.prod(shape) // channels
        transposed = emitter.op("Transpose", [centred], perm=[1, 0])
        factors = [centred, transposed] if channels <= count else [transposed, centred]
        made.append(emitter.op("Div", [emitter.op("MatMul", factors), emitter.constant(np.asarray(count, np.float32))]))
    prepared.append()
    return made
