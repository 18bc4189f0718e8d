"""What one training-free score says of one model: a number, or why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from epsinas_onnx._util.text import sentence


class MeasurementStatus(StrEnum):
    """Why there is a number, or why there is none."""

    OK = "ok"
    """There is a finite number."""
    UNSUPPORTED = "unsupported"
    """An operator of the graph has no rule, or the graph has nothing that the score looks at."""
    UNDEFINED = "undefined"
    """The formula gives no finite number for this model, such as a logarithm of 0."""
    ERROR = "error"
    """The graph could not be run."""


@dataclass(frozen=True)
class Measurement:
    """One score of one model. Frozen; `to_dict()` is its JSON record.

    Attributes:
        name: of the score, as in the registry.
        value: the number, None unless `status` is `ok`; larger means better as the score's paper has it.
        status: whether there is a number, and if not, why.
        reason: one sentence that says why there is none, with the node where one is to blame; None where there is one.
        seconds: wall clock of this score alone; what several share is not in it.
    """

    name: str
    value: float | None
    status: MeasurementStatus = MeasurementStatus.OK
    reason: str | None = None
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if (self.value is None) == (self.status is MeasurementStatus.OK):
            raise ValueError(f"a number goes with the status ok and no other, got {self.value} with {self.status}")
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"{self.name} is {self.value}, which is no finite number")
        if self.reason is not None:
            object.__setattr__(self, "reason", sentence(self.reason))

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        return {
            "value": self.value, "status": str(self.status), "reason": self.reason, "seconds": round(self.seconds, 6),
        }  # fmt: skip
