"""Scores as JSON, JSON lines and CSV: every field, for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from epsinas_onnx._util import text
from epsinas_onnx._util.names import escaped
from epsinas_onnx.scoring.result import Score

CSV_FIELDS = ("model", "score", "raw_score", "status", "reason", "weights", "input", "batch", "provider", "parameters",
              "nodes", "seconds", "output", "warnings", "norm_stats", "seed",
              "arithmetic", "order", "float32_status")  # fmt: skip
PROXY_FIELDS = ("value", "status", "reason", "seconds")


def to_json(scores: Sequence[Score]) -> str:
    """Return a JSON array of records."""
    return text.to_json([score.to_dict() for score in scores])


def to_json_line(score: Score) -> str:
    """Return one record on one line."""
    return text.to_json(score.to_dict(), indent=None)


def to_csv(scores: Sequence[Score]) -> str:
    """Return a CSV with a header, a line a row; lists are joined by spaces or semicolons, seconds are the total.

    Other scores have columns of their own behind the rest, named as pandas names what is nested in the JSON:
    `proxies.swap.value`, `proxies.swap.status` and so on.
    """
    return "".join(csv_lines(scores, list(dict.fromkeys(name for score in scores for name in score.proxies))))


def csv_lines(scores: Iterable[Score], others: Sequence[str]) -> Iterator[str]:
    """Yield the header and the lines of such a CSV; others: the names of other scores that have columns."""
    nested = {(name, key): f"proxies.{name}.{key}" for name in others for key in PROXY_FIELDS}
    yield _line([*CSV_FIELDS, *nested.values()])
    for score in scores:
        record = score.to_dict()
        record["weights"] = " ".join(repr(weight) for weight in record["weights"])
        record["seconds"] = round(sum(record["seconds"].values()), 6)
        record["output"] = " ".join(record["output"])
        record["warnings"] = "; ".join(record["warnings"])
        more = [record["proxies"].get(name, {}).get(key) for name, key in nested]
        yield _line([*(_cell(record[field]) for field in CSV_FIELDS), *map(_cell, more)])


def _line(cells: Sequence[Any]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerow(cells)
    return written.getvalue()


def _cell(value: Any) -> Any:
    """Return text escaped, so that a row is a line, no more than text to a CI runner, and read back as it was."""
    return escaped(value) if isinstance(value, str) else value
