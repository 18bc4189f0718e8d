"""The SWAP-score: how many different patterns the units of an untrained network show over the samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from epsinas_onnx.proxies.finite import check_output
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy
from epsinas_onnx.proxies.signs import signs

_BITS = 24
"""How many samples go into one number that float32 holds exactly."""


class Swap(Proxy):
    """The number of distinct sign patterns over the minibatch among all pre-activations.

    A unit's pattern is the vector of its signs in all samples, 1 where the pre-activation is positive. With B
    `[samples, units]` for one activation and P `[ceil(samples / 24), samples]` of powers of 2, P B holds each pattern
    in whole numbers below 2**24, which float32 has exactly; only they leave the graph. The score is how many different
    columns all P B have together, at most the number of units and 2**samples. It is the published score without the
    regularisation by the number of parameters.

    What it cannot say: with many samples nearly every unit has a pattern of its own, and the score becomes the number
    of units (`relu_units`); with few it saturates at 2**samples. Scores of different minibatch sizes do not compare.

    Source: Peng, Song, Fayek, Ciesielski, Chang: SWAP-NAS: Sample-Wise Activation Patterns for Ultra-Fast NAS,
    ICLR 2024, arXiv 2403.04161.
    """

    name: ClassVar[str] = "swap"
    summary: ClassVar[str] = "number of distinct sign patterns of units over the minibatch"
    source: ClassVar[str] = "Peng et al., ICLR 2024, arXiv:2403.04161"

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Append the packed patterns of every activation."""
        prepared.check_minibatch()
        found, emitter = signs(prepared), prepared.emitter
        packing = emitter.constant(_packing(prepared.batch))
        names = [str(emitter.op("MatMul", [packing, one.value]).name) for one in found]
        prepared.append()
        self._names = names
        return [*names, str(prepared.output.name)]

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return how many different patterns there are."""
        check_output(prepared, fetched)
        packed = np.concatenate([fetched[name].astype(np.int64) for name in self._names], axis=1)
        return float(distinct_columns(packed))


def distinct_columns(packed: Array) -> int:
    """Return how many different columns whole numbers below 2**24 have, `[rows, columns]` of int64."""
    if packed.shape[0] <= 2:
        joined = packed[0] if packed.shape[0] == 1 else packed[0] | packed[1] << _BITS
        ordered = np.sort(joined)  # which takes a tenth of the time of np.unique
        return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))
    columns = packed[:, np.lexsort(packed)]
    return 1 + int(np.count_nonzero((columns[:, 1:] != columns[:, :-1]).any(axis=0)))


def _packing(samples: int) -> Array:
    rows = -(-samples // _BITS)
    packing = np.zeros((rows, samples), np.float32)
    for sample in range(samples):
        packing[sample // _BITS, sample] = 2.0 ** (sample % _BITS)
    return packing
