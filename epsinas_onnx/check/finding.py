"""What a check finds, as data: severities, findings, what is known of a model, and the report over all models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from epsinas_onnx.result import Status


class Severity(StrEnum):
    """How bad a finding is; SARIF's levels."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    def reaches(self, threshold: Severity) -> bool:
        """Whether this is at least as bad as `threshold`."""
        order = list(Severity)
        return order.index(self) <= order.index(threshold)


@dataclass(frozen=True)
class Finding:
    """One rule that one model breaks.

    rule: its stable name. message: what is wrong and where, a sentence without the model's name. fix: what to do, a
    sentence. node: the node it is about, None where it is about the file. ignored: the reason that the configuration
    gives for ignoring it, None where it counts.
    """

    rule: str
    severity: Severity
    message: str
    fix: str
    node: str | None = None
    ignored: str | None = None


@dataclass(frozen=True)
class Facts:
    """What is known of a model; None where it could not be found out, or where nobody asked for the score.

    Attributes:
        fingerprint: of the graph without weights, names and node order, in hexadecimal digits.
        size: bytes of the file, and of its external data.
        parameters: elements of all learned tensors.
        multiply_adds: of convolutions, matrix products and recurrences, for one sample.
        opset: version of the standard operator set.
        status: whether there is a score, and if not, why.
        score: the normalised dispersion, None unless the status is `ok`.
    """

    fingerprint: str | None = None
    size: int | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    opset: int | None = None
    status: Status | None = None
    score: float | None = None


@dataclass(frozen=True)
class CheckedModel:
    """One model's findings, in the order of the rules, and facts. model: its path as given. seconds: wall clock."""

    model: str
    findings: tuple[Finding, ...]
    facts: Facts
    seconds: float

    def counting(self) -> tuple[Finding, ...]:
        """Return the findings that are not ignored."""
        return tuple(finding for finding in self.findings if finding.ignored is None)


@dataclass(frozen=True)
class CheckReport:
    """What a check of many models found.

    fail_on: findings at least as bad as this make the check fail. seconds: wall clock of the whole check.
    """

    models: tuple[CheckedModel, ...]
    fail_on: Severity
    seconds: float

    @property
    def failed(self) -> bool:
        """Whether any finding that is not ignored is as bad as `fail_on`."""
        return any(finding.severity.reaches(self.fail_on) for _, finding in self.counting())

    def counting(self) -> Iterator[tuple[CheckedModel, Finding]]:
        """Yield every finding that is not ignored, with its model."""
        for checked in self.models:
            for finding in checked.counting():
                yield checked, finding

    def summary(self) -> str:
        """Return how many models were checked, and what was found, as one line without an end."""
        counts = {severity: sum(f.severity is severity for _, f in self.counting()) for severity in Severity}
        ignored = sum(f.ignored is not None for checked in self.models for f in checked.findings)
        parts = [_plural(count, str(severity)) for severity, count in counts.items() if count]
        parts += [f"{ignored} ignored"] if ignored else []
        return f"{_plural(len(self.models), 'model')} checked: {', '.join(parts) or 'nothing found'}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        return {
            "failed": self.failed,
            "fail_on": str(self.fail_on),
            "seconds": round(self.seconds, 3),
            "summary": self.summary(),
            "models": [
                {
                    "model": checked.model,
                    "seconds": round(checked.seconds, 3),
                    "facts": {k: v if v is None or not isinstance(v, Status) else str(v)
                              for k, v in dataclasses.asdict(checked.facts).items()},
                    "findings": [{**dataclasses.asdict(f), "severity": str(f.severity)} for f in checked.findings],
                }
                for checked in self.models
            ],
        }  # fmt: skip


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
