"""Measures networks: every quantity that a search asks for, or the status and the reason why there is none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx

from epsinas_onnx.edit.fill import fill
from epsinas_onnx.errors import EpsinasError, UsageError
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.ranking.members import EPSINAS, Found, found
from epsinas_onnx.scoring.api import score_as_done
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.search.latency import LatencySettings, Stopwatch
from epsinas_onnx.search.quantities import Kind, Quantity
from epsinas_onnx.search.reference import Reference

Record = Mapping[str, Any]
PARAMS = "params"


@dataclass(frozen=True)
class Measured:
    """What a network has.

    values: by the name of the quantity. status: `ok`, or why a value is missing. reason: a sentence that says so.
    notes: how a latency was measured.
    """

    values: Mapping[str, float] = field(default_factory=dict)
    status: str = "ok"
    reason: str | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)


class Meter:
    """Measures the same quantities of one network after another; a context manager, which ends what it started.

    own: functions of the caller by the name of the quantity; they are given what `measure` is given as `key`, and may
    return None for no number. arithmetic: `float32` takes numbers of epsinas that the published procedure has alone;
    `exact` and `auto` as for `score`. options: keyword arguments of `score_many`.
    """

    def __init__(
        self, quantities: Sequence[Quantity], *, own: Mapping[str, Callable[[Any], float | None] | None] | None = None,
        latency: LatencySettings | None = None, arithmetic: str = "float32", **options: Any,
    ) -> None:  # fmt: skip
        self.quantities = tuple(dict.fromkeys(quantities))
        self.own = dict(own or {})
        self.arithmetic = arithmetic
        # exact arithmetic says what float32 has as well, and is the faster one
        self.options = {**options, "arithmetic": "auto" if arithmetic == "float32" else arithmetic}
        self.references: dict[str, Reference] = {}
        self._stopwatch = Stopwatch(latency or LatencySettings())

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that measures latencies."""
        self._stopwatch.close()

    @property
    def latency(self) -> LatencySettings:
        """Return what latencies are measured with."""
        return self._stopwatch.settings

    @property
    def members(self) -> tuple[str, ...]:
        """Return the training-free scores that all quantities together are made of."""
        return tuple(dict.fromkeys(member for one in self.quantities for member in one.members))

    @property
    def proxies(self) -> tuple[str, ...]:
        """Return those of them that are asked for beside epsinas; parameters are in every record."""
        return tuple(name for name in self.members if name not in (EPSINAS, PARAMS))

    def score_options(self) -> dict[str, Any]:
        """Return the keyword arguments of `score_as_done` for what has to be scored."""
        return {**self.options, "scores": self.proxies}

    def measure(self, key: Any, source: ModelSource, record: Record | None = None) -> Measured:
        """Return what a network has. record: of `Score.to_dict()`, where there is one; otherwise it is scored here."""
        if record is None and self.members:
            options = {**self.score_options(), "jobs": 1}
            [(_, scored)] = score_as_done([source], **options)
            record = scored.to_dict()
        values: dict[str, float] = {}
        notes: dict[str, Any] = {}
        filled: list[onnx.ModelProto] = []
        missing: Measured | None = None
        for quantity in self.quantities:
            one = self._one(quantity, key, source, record or {}, filled, notes)
            if one.value is not None:
                values[quantity.name] = one.value
            elif missing is None:
                missing = Measured(status=one.status, reason=f"no {quantity.name}: {one.reason or one.status}")
                if one.status == Status.ERROR:
                    break
        status, reason = ("ok", None) if missing is None else (missing.status, missing.reason)
        return Measured(values, status, reason, notes)

    def value(self, quantity: Quantity, record: Record) -> Found:
        """Return a quantity that is made of training-free scores alone, out of a record."""
        if quantity.kind is Kind.RANK:
            return self.references[quantity.name].value(self.seen(record))
        return found(self.seen(record), quantity.name)

    def seen(self, record: Record) -> Record:
        """Return a record as this search sees it: with its parameters as a score, and perhaps without epsinas.

        A number of epsinas that the arithmetic does not let through becomes none.
        """
        record = _with_parameters(record)
        status = record.get("float32_status")
        if self.arithmetic != "float32" or status in (None, "", str(Status.OK)) or record.get("status") != Status.OK:
            return record
        reason = (
            f"float32 ends in {status}, and what exact arithmetic gives lies on another scale; see docs/search.md, or "
            "take --arithmetic auto"
        )
        return {**record, "status": str(status), "score": None, "reason": reason}

    def _one(
        self, quantity: Quantity, key: Any, source: ModelSource, record: Record, filled: list[onnx.ModelProto],
        notes: dict[str, Any],
    ) -> Found:  # fmt: skip
        if quantity.kind in (Kind.SCORE, Kind.RANK):
            return self.value(quantity, record)
        if quantity.kind is Kind.OWN:
            function = self.own[quantity.name]
            if function is None:
                raise UsageError(f"{quantity.name} is told, not measured: it has no function")
            number = function(key)
            if number is not None and not math.isfinite(number):
                return Found(None, "undefined", f"it is {number}")
            return Found(
                number, "ok" if number is not None else "missing", None if number is not None else "there is no number"
            )
        try:
            if not filled:
                filled.append(fill(source))
            if quantity.kind is Kind.SIZE:
                return Found(float(filled[0].ByteSize()), "ok")
            timed = self._stopwatch.measure(filled[0])
        except UsageError:
            raise
        except (EpsinasError, ValueError) as error:
            return Found(None, str(Status.ERROR), str(error))
        notes["latency"] = {
            "low": timed.low, "high": timed.high, "runs": timed.runs, "provider": timed.provider,
            "batch": self._stopwatch.settings.batch, "threads": self._stopwatch.settings.threads,
        }  # fmt: skip
        return Found(timed.milliseconds, "ok")


def _with_parameters(record: Record) -> Record:
    """Return a record in which parameters, that every one counts, are a score like others."""
    if found(record, PARAMS).value is not None:
        return record
    count = record.get("parameters")
    if count in (None, ""):
        counted = {"value": None, "status": record.get("status"), "reason": record.get("reason")}
    else:
        counted = {"value": float(str(count)), "status": "ok", "reason": None}
    proxies = record.get("proxies")
    return {**record, "proxies": {**(proxies if isinstance(proxies, Mapping) else {}), PARAMS: counted}}
