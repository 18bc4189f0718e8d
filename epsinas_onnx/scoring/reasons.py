"""The sentences that say why there is no score, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epsinas_onnx.scoring.diagnosis import LostSignal, SignalLoss
from epsinas_onnx.scoring.metric import FLOAT32, Mask, Precision

NOISY = 0.25
"""An output is noise when moving everything by `Precision.change` gives this dispersion: it changes about as much as it
varies, where a signal would have to be amplified 4,000 times (float32) to do so."""


def proportional(degree: int | None) -> str:
    """Say why a score is 0; degree: in which the network is homogeneous in its weights, where it is proven to be."""
    if degree is None:
        return "the two outputs are proportional up to their last bits, so the score is 0 but for rounding"
    return (
        f"the network is homogeneous of degree {degree} in its weights: another constant multiplies its output by a "
        f"number, so the score of any such network is exactly 0, and does not tell it from another"
    )


def overflow(constant: float, loss: LostSignal | None) -> str:
    """Say where infinities or NaN begin."""
    where = f" first in {loss.place}" if loss else " in the output"
    if isinstance(loss, SignalLoss):
        where += f", whose largest operand is {loss.largest_in:.2g}"
    return f"with weights {constant:g} the signal becomes infinite or NaN{where}"


def underflow(constant: float, loss: LostSignal | None) -> str:
    """Say where a signal ends that varies with other constants; a `SignalLoss` is one of float32."""
    if loss is None:
        return f"with weights {constant:g} the output is the same for every sample, and no single node makes it so"
    if not isinstance(loss, SignalLoss):
        return f"with weights {constant:g} {loss.place} {loss.why}{loss.advice}"
    if loss.cuts and loss.largest_out == 0 and loss.largest_in >= FLOAT32.tiny:
        return (
            f"with weights {constant:g} every sample is cut off to the same value in {loss.place}, whose operand "
            f"reaches {loss.largest_in:.2g} in magnitude"
        )
    if loss.largest_out < FLOAT32.tiny:
        return (
            f"with weights {constant:g} the signal underflows to {loss.largest_out:.2g} in {loss.place}; the largest "
            f"magnitude in front of it is {loss.largest_in:.2g}"
        )
    return (
        f"with weights {constant:g} the signal becomes smaller than float32 resolves beside {loss.largest_out:.3g} in "
        f"{loss.place}{loss.advice}"
    )


def noise(constant: float, share: float, loss: LostSignal | None, precision: Precision) -> str:
    """Say by how much the output changes with everything in front of it."""
    where = f"; behind {loss.place} nothing but rounding is left{loss.advice}" if loss else ""
    changes = (
        f"changes the output by {share:.0%} of its variation" if math.isfinite(share) else "leaves none to compare"
    )
    sooner = "" if share >= NOISY else ", and a move 16 times smaller by more than a quarter as much"
    signal = f"a signal stays below {NOISY:.0%}" if share >= NOISY else "a signal answers in proportion"
    return (
        f"with weights {constant:g} the output's variation cannot be told from rounding: moving input and weights by "
        f"{precision.change:.1g} of themselves {changes}{sooner}, where {signal}{where}"
    )


def tied(constant: float, sets: Sequence[Mask]) -> str:
    """Say how many entries only rounding tells from the minimum."""
    exact, near = (f"{100 * mask.mean():.3g}%" for mask in sets[:2])
    return (
        f"with weights {constant:g}, {near} of the output's entries lie within rounding of its minimum, and the "
        f"formula skips the {exact} that are exactly it"
    )
