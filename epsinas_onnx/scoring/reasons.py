"""The sentences that say why there is no score, from what was measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from epsinas_onnx.scoring.diagnosis import SignalLoss
from epsinas_onnx.scoring.metric import FLOAT32, Mask, Precision

NOISY = 0.25
"""An output is noise when moving everything by `Precision.change` gives this dispersion: it changes about as much as it
varies, where a signal would have to be amplified 4,000 times (float32) to do so."""

PROPORTIONAL = (
    "the two outputs are proportional, which makes the score 0: they are for every network that is homogeneous in its "
    "weights, such as one without normalisations, so the score tells such networks apart from others and not from each "
    "other"
)


def overflow(constant: float, loss: SignalLoss | None) -> str:
    """Say where infinities or NaN begin."""
    where = f" first in {loss.place}, whose largest operand is {loss.largest_in:.2g}" if loss else " in the output"
    return f"with weights {constant:g} the signal becomes infinite or NaN{where}"


def underflow(constant: float, loss: SignalLoss | None, advice: str, precision: Precision) -> str:
    """Say where a signal ends that varies with other constants."""
    if precision is not FLOAT32:
        where = (
            "the output is the same for every sample" if loss is None else f"every sample is the same in {loss.place}"
        )
        return f"with weights {constant:g} {where}, whatever its operand{advice}"
    if loss is None:
        return f"with weights {constant:g} the signal leaves the float32 range: the output is the same for every sample"
    if loss.cuts and loss.largest_out == 0 and loss.largest_in >= precision.tiny:
        return (
            f"with weights {constant:g} every sample is cut off to the same value in {loss.place}, whose operand "
            f"reaches {loss.largest_in:.2g} in magnitude"
        )
    if loss.largest_out < precision.tiny:
        return (
            f"with weights {constant:g} the signal underflows to {loss.largest_out:.2g} in {loss.place}; the largest "
            f"magnitude in front of it is {loss.largest_in:.2g}"
        )
    return (
        f"with weights {constant:g} the signal becomes smaller than float32 resolves beside {loss.largest_out:.3g} in "
        f"{loss.place}{advice}"
    )


def noise(constant: float, share: float, loss: SignalLoss | None, advice: str, precision: Precision) -> str:
    """Say by how much the output changes with everything in front of it."""
    where = f"; behind {loss.place} nothing but rounding is left{advice}" if loss else ""
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
