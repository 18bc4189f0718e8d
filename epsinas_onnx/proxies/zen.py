"""The Zen-score: how much the features of a Gaussian network change with its input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.proxies.drawn import Draw
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError

MIXTURE = 0.01
"""How much of a second Gaussian input is added to the first."""
_STREAM = 0x5A454E
"""Keeps what is added apart from what else is drawn with the seed."""


class Zen(Proxy):
    """log E |f(x) - f(x + 0.01 e)| + sum over batch normalisations of log sqrt(mean over channels of their variance).

    f gives the features in front of the head (`blocks`), those with positions where there are any, such as
    `[samples, channels, height, width]` in front of global pooling; |.| sums the magnitudes over all but the samples, E
    is the mean over these, and e is standard normal like x. All weights are standard normal, whatever the other scores
    draw, so this score runs a graph of its own, twice. Variances are those of the minibatch x; the published code has
    running ones, which after its two runs are 0.81 + 0.19 times these.

    What it cannot say: it was made for networks that normalise every layer by batches. Without that the features of a
    Gaussian network grow with every layer and may leave float32's range (`undefined`), and gates (squeeze and
    excitation) are open or shut. Inputs that are no floats (tokens) cannot be moved a little (`unsupported`).

    Source: Lin, Wang, Sun, Chen, Sun, Qian, Li, Jin: Zen-NAS: A Zero-Shot NAS for High-Performance Image Recognition,
    ICCV 2021, arXiv 2102.01063.
    """

    name: ClassVar[str] = "zen"
    summary: ClassVar[str] = "log change of the features with a Gaussian input, and log deviations of batches"
    source: ClassVar[str] = "Lin et al., ICCV 2021, arXiv:2102.01063"

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Run the Gaussian network on the minibatch and on what is near it, and return the score."""
        prepared.check_minibatch()
        gaussian = prepared.with_draw(Draw.GAUSSIAN)
        if not gaussian.features:
            raise UnsupportedError(f"{prepared.name}: nothing in front of the head is what everything flows through")
        features = str(gaussian.features[-1].name)
        variances = [str(value.name) for value in gaussian.variances]
        moved = moved_inputs(gaussian)
        first = gaussian.run([features, *variances])
        second = gaussian.run([features, *variances], {**gaussian.feeds, **moved})
        with np.errstate(all="ignore"):
            change = np.abs(first[features] - second[features]).sum(dtype=np.float64) / prepared.batch
            deviations = [0.5 * math.log(v) for name in variances if (v := float(first[name].mean())) > 0]
        if not np.isfinite(change) or not np.isfinite(deviations).all():
            raise UndefinedError(
                f"{prepared.name}: features of the network with Gaussian weights leave float32's range"
            )
        if not change or len(deviations) < len(variances):
            raise UndefinedError(f"{prepared.name}: features do not change with the input, so there is no logarithm")
        return math.log(change) + sum(deviations)


def moved_inputs(prepared: Prepared) -> dict[str, Array]:
    """Return the inputs of floats in which samples differ, each with 0.01 times a standard normal draw added."""
    rng = np.random.default_rng([prepared.seed, _STREAM])
    moved = {}
    for value in prepared.inputs:
        array = prepared.feeds[str(value.name)]
        if array.dtype.kind == "f":
            step = MIXTURE * rng.standard_normal(array.shape, np.float32)
            moved[str(value.name)] = (array + step).astype(array.dtype)
    if not moved:
        raise UnsupportedError(f"{prepared.name}: no input holds floats, and other numbers cannot be moved a little")
    return moved
