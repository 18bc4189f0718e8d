"""The record of one scored model: status, score, reason, and everything needed to repeat it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from epsinas_onnx._util.notebook import ShownInNotebook
from epsinas_onnx._util.text import sentence
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus

SAME = "computes the same as"
"""How the warning begins of a score that another network was run for."""


def same_as(model: str) -> str:
    """Return the warning of a score that is another model's, because both compute the same."""
    return f"{SAME} {model}, which was run instead"


class Status(StrEnum):
    """Why there is a score, or why there is none (docs/metric.md)."""

    OK = "ok"
    """Both outputs vary over the minibatch, well above rounding."""
    UNDERFLOW = "underflow"
    """A signal that varies in exact arithmetic left the float32 range downwards."""
    OVERFLOW = "overflow"
    """Infinities or NaN in an output."""
    CONSTANT = "constant"
    """The output does not depend on the input."""
    NOISE = "noise"
    """The outputs vary, or differ, by no more than rounding does, or rounding decides by how much."""
    ERROR = "error"
    """The file could not be read or run; only `score_many` and the command line give this."""


@dataclass(frozen=True)
class Score(ShownInNotebook):
    """One model's result. Frozen; `to_dict()` is its JSON record.

    Attributes:
        model: where it came from: a path, or `<bytes>`, `<ModelProto>`, `<ir.Model>`.
        score: the normalised dispersion (no unit, at least 0), None unless `status` is `ok`.
        raw_score: what the formula gives whatever the status; None where it is not a number.
        status: whether there is a score, and if not, why.
        reason: one sentence that says why the status is not `ok`, with the node; None when it is.
        weights: the two constants.
        input: what was fed, in words: `grey`, `tokens`, a file name.
        batch: how many samples.
        provider: the execution provider that ran the graph; None when nothing was run.
        parameters: elements of all learned tensors (weights, biases and embeddings, tied ones counted once).
        nodes: nodes of the graph as loaded, functions inlined, bodies included.
        seconds: wall clock of `load`, `rewrite`, `session`, `run`, and `judge`, the rest, which is mostly finding the
            reason; together what scoring took. `total` alone where `status` is `error`. Where other scores are
            asked for, `proxies` is what they took.
        output: names of the outputs that were compared.
        warnings: what a careful reader should know, a sentence each.
        norm_stats: which statistics normalisations used: `batch`, `reset` or `stored`.
        seed: of random inputs and of embedding tables.
        arithmetic: `exact` or `float32`, in which the score was computed; None where nothing was.
        order: d log|v| / d log c towards c = 0, where v is how far the output's entries lie apart with weights c: how
            many weights in a row the shortest path to the output has. Networks of different order lie on different
            scales. None where the output does not vary, or nobody asked.
        float32_status: the status that float32, the published procedure, gives; None where nobody asked.
        proxies: other training-free scores, those that were asked for, by name: each has its own status and reason,
            whatever that of this one is.
        proxy_batch: how many samples they were asked to see; None where none were asked for.
        versions: of this package, onnx, onnx-ir and onnxruntime, by the name of the package.
    """

    model: str
    score: float | None
    raw_score: float | None
    status: Status
    reason: str | None
    weights: tuple[float, float]
    input: str
    batch: int
    provider: str | None
    parameters: int | None
    nodes: int | None
    seconds: Mapping[str, float]
    output: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    norm_stats: str = "batch"
    seed: int = 0
    arithmetic: str | None = None
    order: float | None = None
    float32_status: Status | None = None
    proxies: Mapping[str, Measurement] = field(default_factory=dict)
    proxy_batch: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.score is None) == (self.status is Status.OK):
            raise ValueError(f"a score goes with the status ok and no other, got {self.score} with {self.status}")
        if self.reason is not None:
            object.__setattr__(self, "reason", sentence(self.reason))
        object.__setattr__(self, "warnings", tuple(map(sentence, self.warnings)))

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Self:
        """Return the Score that `to_dict` gave this record of; a raw score that is not a number is None."""
        fields = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in record.items() if key in fields}
        for key in ("weights", "output", "warnings"):
            values[key] = tuple(values.get(key) or ())
        float32 = values.get("float32_status")
        values["status"] = Status(values["status"])
        values["float32_status"] = None if float32 is None else Status(float32)
        values["proxies"] = {
            name: Measurement(name, one["value"], MeasurementStatus(one["status"]), one["reason"], one["seconds"])
            for name, one in (values.get("proxies") or {}).items()
        }
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only: numbers that JSON cannot hold (NaN, infinities) become None."""
        record = dataclasses.asdict(self)
        record["proxies"] = {name: one.to_dict() for name, one in self.proxies.items()}
        record["status"] = str(self.status)
        for key in ("score", "raw_score", "order"):
            value = record[key]
            record[key] = value if value is not None and math.isfinite(value) else None
        if self.float32_status is not None:
            record["float32_status"] = str(self.float32_status)
        for key in ("weights", "output", "warnings"):
            record[key] = list(record[key])
        for key in ("seconds", "versions"):
            record[key] = dict(record[key])
        return record


RELATIVE, ABSOLUTE = 1e-3, 2e-5
"""How far equal scores may be apart, the larger of both: what rounding does on other machines and versions."""


def same_score(one: float | None, other: float | None, relative: float = RELATIVE, absolute: float = ABSOLUTE) -> bool:
    """Whether two scores are equal but for rounding; no score equals no score alone."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(absolute, relative * abs(other))
