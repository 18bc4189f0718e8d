"""Decides the status of a score from the two outputs, running again only where there is reason to doubt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from epsinas_onnx.scoring.diagnosis import LostSignal
from epsinas_onnx.scoring.metric import (
    EPSILON,
    EXACT,
    FLOAT32,
    Mask,
    Precision,
    amplification,
    levels_compared,
    normalised_dispersion,
    varies,
)
from epsinas_onnx.scoring.reasons import NOISY, noise, overflow, proportional, tied, underflow
from epsinas_onnx.scoring.result import Status, same_score
from epsinas_onnx.scoring.ties import choices, score_range, suspected

Array = npt.NDArray[Any]
ChannelStats: TypeAlias = Sequence[tuple[Array, Array]]

LOST = 2.0**13
"""Doubt an output that varies by less of its size than this many roundings: of the 23 bits of float32 13 have
cancelled by then."""

NORM_DEVIATION = 16 * EPSILON
"""Doubt a batch normalisation whose channel deviates by less than this share of its mean: only rounding may be left."""

UNSURE = 0.02
"""From this dispersion on it is also noise when a change 16 times smaller gives more than a quarter of it: a signal
answers in proportion. Sparse rounding errors, of which most are the same again, end here."""

RESOLUTION = 4.0
"""A score counts when it is more than this many times the dispersion that the last bits alone cause; and not where
rounding, which decides what is exactly the minimum, can make it this many times larger or smaller."""

PROBES = (1.0, 0.1, 0.01)
"""Constants tried to see whether an output can vary at all. It is a piecewise analytic function of the constant, so
where it varies for one of them it varies in exact arithmetic for almost every other."""


class Runner(Protocol):
    """What the judge may ask for; the scorer gives it."""

    def rerun_perturbed(self, constant: float, change: float | None = None) -> Array:
        """Return the output for `constant` with inputs and constant moved by a share, None for their last bits."""

    def run_probe_constant(self, constant: float) -> tuple[Array, Array]:
        """Return the output for a few samples and another constant: as they are, and moved a little
        (`Precision.change`).
        """

    def find_loss(self, constant: float) -> LostSignal | None:
        """Return where the signal ends for `constant`."""

    def find_explosion(self, constant: float) -> LostSignal | None:
        """Return where infinities or NaN begin for `constant`."""

    def degree(self) -> int | None:
        """Return in which degree the network is homogeneous in its weights, None where it is not, or nobody knows."""


@dataclass(frozen=True)
class Evidence:
    """What a first pass over both constants showed.

    outputs: one array a constant. channel_stats: for each constant, mean and variance by channel of batch
    normalisations. depth: nodes on the longest path. longest_sum: the largest fan-in of a layer. sample_norms: names of
    normalisations within samples (LayerNorm and its kin). constant_reason: why no path leads from input to output, None
    where one does.
    without_weights: why the model has no weights, None where it has some. precision: what the
    arithmetic resolves. constant_node: the node that constant_reason names, None where it names none. status_only:
    whether nobody reads the reason.
    """

    weights: tuple[float, float]
    outputs: tuple[Array, Array]
    channel_stats: tuple[ChannelStats, ChannelStats]
    depth: int
    longest_sum: int
    sample_norms: Sequence[str]
    constant_reason: str | None
    without_weights: str | None = None
    precision: Precision = FLOAT32
    constant_node: str | None = None
    status_only: bool = False


@dataclass(frozen=True)
class Verdict:
    """A status with its reason (None for ok) and the number that the formula gives (None where it gives none).

    note: what a careful reader should know beside the status, None for nothing. node: the node that the reason names
    as where the signal ends. constant: with which it does, None where it does with any.
    """

    status: Status
    reason: str | None
    raw_score: float | None
    note: str | None = None
    node: str | None = None
    constant: float | None = None


def _ending(status: Status, reason: str, raw: float | None, loss: LostSignal | None, constant: float) -> Verdict:
    """Return a verdict whose reason says where the signal ends."""
    return Verdict(status, reason, raw, None, *((None, None) if loss is None else (loss.name, constant)))


def judge(evidence: Evidence, runner: Runner) -> Verdict:
    """Return the verdict on one model (docs/metric.md; how noise is told: docs/numerics.md).

    The order: a graph without a path is `constant`; infinities are `overflow`; an output that is the same for all
    samples is `underflow` where another constant makes it vary, else `constant`; what varies by rounding alone is
    `noise`; the rest is `ok`, unless the model has no weights, and two constants could not make a difference.
    """
    verdict = _judged(evidence, runner)
    if evidence.without_weights is not None and verdict.status in (Status.OK, Status.NOISE):
        return Verdict(Status.NOISE, evidence.without_weights, verdict.raw_score)
    return verdict


def _judged(evidence: Evidence, runner: Runner) -> Verdict:
    first, second = evidence.outputs
    raw = normalised_dispersion(first, second)
    raw_score = raw if math.isfinite(raw) else None
    if evidence.constant_reason is not None:
        return Verdict(
            Status.CONSTANT, f"the output does not depend on the input: {evidence.constant_reason}", raw_score,
            node=evidence.constant_node,
        )  # fmt: skip
    for constant, output in zip(evidence.weights, evidence.outputs, strict=True):
        if not np.isfinite(output).all():
            begins = runner.find_explosion(constant)
            return _ending(Status.OVERFLOW, overflow(constant, begins), raw_score, begins, constant)
    still = [c for c, output in zip(evidence.weights, evidence.outputs, strict=True) if not varies(output)]
    if still:
        return _without_signal(evidence, still, runner, raw_score)
    if not _doubtful(evidence, raw):
        return _counted(evidence, raw, runner)
    return _measured(evidence, raw_score, runner)


def _doubtful(evidence: Evidence, raw: float) -> bool:
    """Screen cheaply for a reason to measure rounding: it costs a pass for each constant."""
    if not math.isfinite(raw) or any(_may_be_rounding(evidence, index) for index in range(2)):
        return True
    # A signal is rounded once a node, and normalising enlarges what has gathered by then.
    enlarged = sum(amplification(output) for output in evidence.outputs)
    epsilon = evidence.precision.epsilon
    return raw < max(LOST * epsilon, RESOLUTION * evidence.depth * epsilon * enlarged)


def _may_be_rounding(evidence: Evidence, index: int) -> bool:
    """Whether rounding alone could be what makes the output for one of the constants vary."""
    if evidence.sample_norms or amplification(evidence.outputs[index]) * LOST * evidence.precision.epsilon > 1:
        return True
    return any(_enlarges_rounding(mean, variance) for mean, variance in evidence.channel_stats[index])


def _enlarges_rounding(mean: Array, variance: Array) -> bool:
    """Whether a normalisation may have been given channels that vary by rounding alone."""
    if variance.size == mean.size == 1:  # as of most lumped ones, where NumPy would take longer than everything else
        share = NORM_DEVIATION * float(mean.item())
        return 0.0 < float(variance.item()) < share * share
    return bool(np.any((variance > 0) & (variance < (NORM_DEVIATION * mean) ** 2)))


def _measured(evidence: Evidence, raw: float | None, runner: Runner) -> Verdict:
    pairs = list(zip(evidence.weights, evidence.outputs, strict=True))
    precision = evidence.precision
    shares = _noise_shares(evidence, runner)
    worst = max(shares)
    floor = _floor(evidence, runner) if worst == 0 else math.inf
    if raw is not None and raw > RESOLUTION * floor:
        return _counted(evidence, raw, runner)
    for constant, output in pairs:
        if _spread(output) < precision.tiny:
            reason = f"with weights {constant:g} the output spans {_spread(output):.2g}, below float32's normal range"
            return Verdict(Status.UNDERFLOW, reason, raw)
    if worst > 0:
        constant = evidence.weights[shares.index(worst)]
        loss = runner.find_loss(constant)
        return _ending(Status.NOISE, noise(constant, worst, loss, precision), raw, loss, constant)
    if raw is None:
        reason = "the formula skips zeros, and no entry is left to compare; a larger --batch leaves more"
        return Verdict(Status.NOISE, reason, raw)
    if raw == 0 and levels_compared(*evidence.outputs) == 1:  # both are at their largest there, which is no rounding
        note = "the formula skips zeros, and only equal entries are left to compare; a larger --batch leaves more"
        return Verdict(Status.OK, None, raw, note)
    if precision is EXACT:
        return Verdict(Status.OK, None, 0.0, proportional(runner.degree()))
    return Verdict(
        Status.NOISE,
        f"the two outputs differ too little to tell from rounding: the formula gives {raw:.2g}, and a score counts "
        f"above {RESOLUTION * floor:.2g}, {RESOLUTION:g} times what rounding alone can give",
        raw,
    )


def _noise_shares(evidence: Evidence, runner: Runner) -> list[float]:
    """Return `_noise_share` for each constant; where nobody reads which is the worst, up to the first that is noise."""
    shares = []
    for constant, output in zip(evidence.weights, evidence.outputs, strict=True):
        shares.append(_noise_share(output, constant, runner, evidence.precision))
        if evidence.status_only and shares[-1] > 0:
            break
    return shares


def _floor(evidence: Evidence, runner: Runner) -> float:
    """Return the dispersion that rounding alone can give."""
    precision, pairs = evidence.precision, list(zip(evidence.weights, evidence.outputs, strict=True))
    floor = sum(_dispersion(output, runner.rerun_perturbed(constant)) for constant, output in pairs)
    # A sum of n terms that cancel is off by about sqrt(n) roundings, most of them the same again when the last bits
    # of its terms change; and steps below the normal range do not answer to last bits at all.
    step = precision.smallest
    floor = max(floor, precision.epsilon * math.sqrt(evidence.longest_sum))
    return floor + (sum(_grid(o, step) / _spread(o) for _, o in pairs) if step else 0.0)


def _counted(evidence: Evidence, raw: float, runner: Runner) -> Verdict:
    """Return ok, with a note where rounding decides what the formula skips and that matters; noise where it is all."""
    outputs, pairs = evidence.outputs, list(zip(evidence.weights, evidence.outputs, strict=True))
    epsilon = evidence.precision.epsilon
    first, second = (suspected(output, evidence.depth, epsilon) for output in outputs)
    if not _matters(outputs, (first, second)):
        return Verdict(Status.OK, None, raw)
    first, second = (choices(o, runner.rerun_perturbed(c), evidence.depth, RESOLUTION, epsilon) for c, o in pairs)
    if not _matters(outputs, (first, second)):
        return Verdict(Status.OK, None, raw)
    low, high = score_range(*outputs, (first, second))
    where = " and ".join(tied(c, sets) for c, sets in zip(evidence.weights, (first, second), strict=True) if sets[1:])
    if high <= RESOLUTION * low:
        return Verdict(Status.OK, None, raw, f"the score lies between {low:.4g} and {high:.4g}: {where}")
    if math.isnan(low):
        reason = (
            f"rounding decides whether there is a score: {where}, and without all of them nothing is left to compare"
        )
    else:
        reason = f"rounding decides the score, which is anything between {low:.2g} and {high:.2g}: {where}"
    return Verdict(Status.NOISE, reason, raw)


def _matters(outputs: tuple[Array, Array], skipped: tuple[Sequence[Mask], Sequence[Mask]]) -> bool:
    """Whether it makes a score that no longer counts as the same which of the sets are skipped."""
    return any(sets[1:] for sets in skipped) and not same_score(*score_range(*outputs, skipped))


def _without_signal(evidence: Evidence, still: Sequence[float], runner: Runner, raw: float | None) -> Verdict:
    shares = {
        constant: _noise_share(output, constant, runner, evidence.precision)
        if _may_be_rounding(evidence, index)
        else 0.0
        for index, (constant, output) in enumerate(zip(evidence.weights, evidence.outputs, strict=True))
        if constant not in still
    }
    if not shares:
        for constant in PROBES:
            if constant in evidence.weights:
                continue
            plain, nudged = runner.run_probe_constant(constant)
            if np.isfinite(plain).all() and varies(plain):
                share = _dispersion(plain, nudged)
                shares[constant] = share if share >= NOISY else 0.0
                if share < NOISY:
                    break
    varying = any(share == 0 for share in shares.values())
    if shares and not varying:
        constant, share = max(shares.items(), key=lambda item: item[1])
        loss = runner.find_loss(constant)
        return _ending(Status.NOISE, noise(constant, share, loss, evidence.precision), raw, loss, constant)
    constant = still[0]
    if not varying:
        constant = max(still, key=abs)  # the larger constant carries a signal further, to where it really ends
    loss = runner.find_loss(constant)
    if not varying:
        where = f": {loss.place} {loss.why}{loss.advice}" if loss else ""
        return _ending(Status.CONSTANT, f"the output does not depend on the input{where}", raw, loss, constant)
    return _ending(Status.UNDERFLOW, underflow(constant, loss), raw, loss, constant)


def _noise_share(output: Array, constant: float, runner: Runner, precision: Precision) -> float:
    """Return by which share of its variation an output changes with everything in front of it; 0 for a signal."""
    change = precision.change
    share = _dispersion(output, runner.rerun_perturbed(constant, change))
    if share >= NOISY:
        return share
    if share >= UNSURE and _dispersion(output, runner.rerun_perturbed(constant, change / 16)) > share / 4:
        return share
    return 0.0


def _dispersion(output: Array, again: Array) -> float:
    """Return the dispersion between an output and its repetition (infinite if undefined)."""
    value = normalised_dispersion(output, again)
    return value if math.isfinite(value) else math.inf


def _grid(output: Array, smallest: float) -> float:
    """Return the step between numbers that an output could have held; smallest: the step that its arithmetic has.

    What left the normal range and was then multiplied, by a sum over equal channels for one, keeps the coarser steps
    that it had there: they are what all entries are multiples of.
    """
    largest = float(np.abs(output).max())
    if largest >= smallest * 2**52:
        return smallest
    steps = (output.astype(np.float64) / smallest).astype(np.int64)
    return smallest * max(1, int(np.gcd.reduce(steps, axis=None)))


def _spread(output: Array) -> float:
    return float(output.max()) - float(output.min())
