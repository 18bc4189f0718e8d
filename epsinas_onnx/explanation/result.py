"""What `explain` returns: every value of a graph for both constants, and where the signal ends; frozen, and JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from epsinas_onnx._util.text import sentence
from epsinas_onnx.scoring.result import Status

LOG10_OF_2 = math.log10(2)


class Number(NamedTuple):
    """A number without a range: `mantissa * 10**exponent`, the mantissa between 1 and 10, or 0, NaN or infinite."""

    mantissa: float
    exponent: int

    @classmethod
    def of(cls, mantissa: float, exponent: int = 0) -> Number:
        """Return `mantissa * 2**exponent`.

        >>> str(Number.of(3.0, -2000)), str(Number.of(-0.25)), str(Number.of(0.0))
        ('2.61e-602', '-0.25', '0')
        """
        if mantissa == 0 or not math.isfinite(mantissa):
            return cls(mantissa + 0.0, 0)
        log = math.log10(abs(mantissa)) + exponent * LOG10_OF_2
        whole = math.floor(log)
        scale = mantissa * 2.0**exponent if -900 < exponent < 900 else 0.0
        if scale != 0 and math.isfinite(scale) and -290 < whole < 290:
            found = scale / 10.0**whole
        else:
            found = math.copysign(10.0 ** (log - whole), mantissa)
        return cls(found / 10, whole + 1) if abs(found) >= 10 else cls(found, whole)

    def __str__(self) -> str:
        if self.mantissa == 0 or not math.isfinite(self.mantissa):
            return f"{self.mantissa:g}"
        if -4 <= self.exponent < 6:
            return f"{self.mantissa * 10.0**self.exponent:.3g}"
        mantissa = f"{self.mantissa:.3g}"
        return f"{mantissa}e{self.exponent:+03d}"


@dataclass(frozen=True)
class Observed:
    """One value for one constant, over the minibatch.

    Attributes:
        low: the smallest entry; a `Number`, whose exponent has no bounds.
        high: the largest.
        magnitude: log10 of the largest magnitude; None where all entries are 0.
        variation: log10 of how far any sample lies from the first one; None where all samples are equal.
        finite: whether no entry is NaN or infinite.
    """

    low: Number
    high: Number
    magnitude: float | None
    variation: float | None
    finite: bool


@dataclass(frozen=True)
class ExplainedValue:
    """One value that follows from an input, in the main graph or in the body of an If, a Loop or a Scan.

    One in a body that is run again and again is looked at over all turns: `observed` has the least and the largest
    entry of all, and the largest variation.

    Attributes:
        name: of the value; in a body `NODE/ATTRIBUTE/NAME` where another value has that name too.
        node: the name of the node that makes it; empty for an input. What a body is given is made by the node that
            holds the body.
        operator: of that node, `Input` for an input, and `Loop input` or `Scan input` for what a body is given.
        depth: nodes on the longest path from an input.
        shape: of the whole value, in a body of one turn; None where it is known at run time only.
        classes: how many classes of equal indices each axis has, which is all that is computed; None where nothing is
            lumped.
        operands: the values in front of the node that follow from an input.
        observed: for each of the two constants; None where nothing was computed, because a proof says that the value
            does not depend on the input, or the run ended before.
        dispersion: the metric between this value's two arrays, as if it were the output; None where it has none.
        share: the part of the score that arises in this value's node (docs/explain.md); None where there is no score
            to share.
        inside: names of the nodes in whose bodies it lies, outermost first.
    """

    name: str
    node: str
    operator: str
    depth: int
    shape: tuple[int, ...] | None
    classes: tuple[int, ...] | None
    operands: tuple[str, ...]
    observed: tuple[Observed | None, Observed | None]
    dispersion: float | None = None
    share: float | None = None
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Ending:
    """Where the signal ends.

    Attributes:
        status: the status that follows.
        reason: the sentence of the `Score`.
        node: the first node that loses the signal; None where the reason names none. Where the reason names one that
            holds bodies, the node in a body that does.
        operator: of that node.
        constant: with which it does; None where it does with any.
        operands: the values that feed the node and follow from an input.
        arithmetic: `exact` or `float32`.
        inside: names of the nodes in whose bodies that node lies, outermost first.
    """

    status: Status
    reason: str
    node: str | None
    operator: str | None
    constant: float | None
    operands: tuple[str, ...]
    arithmetic: str
    inside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Explanation:
    """Where the signal of one model goes. Frozen; `to_dict()` is its JSON record.

    Attributes:
        model: where it came from.
        status: that of the `Score`, `error` where the graph does not run.
        score: the `Score`'s; None unless `status` is `ok`.
        weights: the two constants.
        arithmetic: `exact` or `float32`, in which score and values were computed.
        float32_status: the status that float32 gives; None where nobody asked.
        input: what was fed, in words.
        batch: samples that were scored.
        samples: samples that the values were observed over.
        dispersion: the metric of the output over those samples, which the shares add up to; None where it has none.
        values: the inputs and every value that follows from them, each behind what feeds it; those of a body before the
            outputs of the node that holds it.
        lost: where the signal ends; None where it arrives.
        lost_in_float32: where it ends in float32, where that is another place than in exact arithmetic.
        unobserved: nodes inside of bodies (If, Loop, Scan) whose values were not seen.
        not_taken: nodes inside of branches of an If that were not taken.
        warnings: those of the `Score`.
    """

    model: str
    status: Status
    score: float | None
    weights: tuple[float, float]
    arithmetic: str
    float32_status: Status | None
    input: str
    batch: int
    samples: int
    dispersion: float | None
    values: tuple[ExplainedValue, ...]
    lost: Ending | None
    lost_in_float32: Ending | None
    unobserved: int = 0
    not_taken: int = 0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "warnings", tuple(map(sentence, self.warnings)))

    @property
    def endings(self) -> list[Ending]:
        """Return where the signal ends, in either arithmetic."""
        return [one for one in (self.lost, self.lost_in_float32) if one is not None]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only; a `Number` is a pair of mantissa and exponent, None where it is not finite."""
        return _plain(dataclasses.asdict(self))  # type: ignore[no-any-return]


def _plain(found: Any) -> Any:
    match found:
        case Number():
            return [_plain(found.mantissa), found.exponent] if math.isfinite(found.mantissa) else None
        case Status():
            return str(found)
        case float():
            return found if math.isfinite(found) else None
        case Mapping():
            return {key: _plain(value) for key, value in found.items()}
        case list() | tuple():
            return [_plain(value) for value in found]
    return found
