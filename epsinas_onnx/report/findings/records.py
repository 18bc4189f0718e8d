"""Findings as JSON: every field, as it was found, for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport


def to_json(report: CheckReport) -> str:
    """Return one JSON object in ASCII, so that a lone surrogate in a path survives too."""
    return json.dumps(report.to_dict(), indent=2, allow_nan=False) + "\n"
