"""Findings as JSON: every field, as it was found, for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from epsinas_onnx._util import text

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport


def to_json(report: CheckReport) -> str:
    """Return one JSON object in ASCII, so that a lone surrogate in a path survives too."""
    return text.to_json(report.to_dict())
