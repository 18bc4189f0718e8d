"""Scores as JSON, JSON lines and CSV: every field, for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence

from epsinas_onnx._util.names import escaped
from epsinas_onnx.scoring.result import Score

CSV_FIELDS = ("model", "score", "raw_score", "status", "reason", "weights", "input", "batch", "provider", "parameters",
              "nodes", "seconds", "output", "warnings", "norm_stats", "seed")  # fmt: skip


def to_json(scores: Sequence[Score]) -> str:
    """Return a JSON array of records, in ASCII, so that a name that is no UTF-8 is read back as it was."""
    return json.dumps([score.to_dict() for score in scores], indent=2, allow_nan=False) + "\n"


def to_json_line(score: Score) -> str:
    """Return one record on one line."""
    return json.dumps(score.to_dict(), allow_nan=False) + "\n"


def to_csv(scores: Sequence[Score]) -> str:
    """Return a CSV with a header; lists are joined by spaces or semicolons, seconds are the total, texts `escaped`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    for score in scores:
        record = score.to_dict()
        record["weights"] = " ".join(repr(weight) for weight in record["weights"])
        record["seconds"] = round(sum(record["seconds"].values()), 6)
        record["output"] = " ".join(record["output"])
        record["warnings"] = "; ".join(record["warnings"])
        fields = (record[field] for field in CSV_FIELDS)
        writer.writerow([escaped(field) if isinstance(field, str) else field for field in fields])
    return text.getvalue()
