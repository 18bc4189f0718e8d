"""Synaptic flow: how fast the output grows with all weights at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.proxies.growth.rewrite import add_growth
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.scoring.plan import plan

_SAMPLES = 2
"""All are of ones, so one would do, but two tell inputs in which samples differ from masks."""


class Synflow(Proxy):
    """log sum over weights of w dR/dw, where R is the sum of the output for one sample of ones, with all weights |w|.

    Normalisations are left out, and biases are 0. With all weights c times as large the sum is c dR/dc at c = 1, which
    is found in one pass beside the value itself, by the rules of `growth`, and needs no gradient. The number is the
    logarithm of the paper's, which leaves every range for a deep network; ranks are the same. Inputs that are no floats
    (tokens) are drawn from the seed.

    What it cannot say: it was made for networks of linear layers and ReLU. Functions that saturate do so without their
    normalisations (ReLU6, gates), and then stop what flows through them, as they do in the paper's code; an attention's
    softmax has no rule. Where the sum is not positive, its logarithm is undefined.

    Source: Tanaka, Kunin, Yamins, Ganguli: Pruning neural networks without any data by iteratively conserving synaptic
    flow, NeurIPS 2020, arXiv 2006.05467; as a score of architectures: Abdelfattah, Mehrotra, Dudziak, Lane: Zero-Cost
    Proxies for Lightweight NAS, ICLR 2021, arXiv 2101.08134.
    """

    name: ClassVar[str] = "synflow"
    summary: ClassVar[str] = "log of how fast the output grows with all weights, their signs left out"
    source: ClassVar[str] = "Tanaka et al., NeurIPS 2020, arXiv:2006.05467"
    plans_once: ClassVar[bool] = True

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Rewrite a graph for one sample, run it on ones, and return the logarithm."""
        samples = 1 if prepared.per_sample else prepared.batching.fixed_batch_size or _SAMPLES
        last = prepared.last and samples != 1  # else inputs are asked of the minibatch's own plan
        planned = plan(prepared.loaded, samples, prepared.batching.options, infer=True, last=last)
        batching = dataclasses.replace(prepared.batching, per_sample=False)  # one sample needs no others beside it
        minibatch = Minibatch("normal", prepared.seed, prepared.name)
        alone = dataclasses.replace(
            prepared, given=planned, owned=True, batching=batching, minibatch=minibatch, normalised=False
        )
        varied = {str(value.name) for value in (prepared if samples == 1 else alone).inputs}
        ones = [value for value in alone.graph.graph.inputs if value.name in varied and value.dtype in FLOATS]
        growth = add_growth(alone.graph, prepared.name, ones)
        if growth is None:
            raise UndefinedError(f"{prepared.name}: no weight reaches the output, so nothing grows")
        feeds = {
            name: np.ones_like(array) if name in varied and array.dtype.kind == "f" else array
            for name, array in alone.feeds.items()
        }
        slope, scale = (str(value.name) for value in growth)
        found = alone.run([slope, scale], feeds, small=True)
        total = float(found[slope])
        if not total > 0:
            raise UndefinedError(f"{prepared.name}: the output does not grow with the weights ({total:g})")
        return math.log(total) + float(found[scale]) - math.log(samples)
