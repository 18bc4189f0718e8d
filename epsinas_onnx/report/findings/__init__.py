"""A check's findings as text: one file a format, and the one function that chooses between them.

Whatever a format cannot hold, or a terminal would obey, is shown as an escape: see `_util.text.shown`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING

from epsinas_onnx.report.findings.github import to_github
from epsinas_onnx.report.findings.junit import to_junit
from epsinas_onnx.report.findings.markdown import to_markdown
from epsinas_onnx.report.findings.records import to_json
from epsinas_onnx.report.findings.sarif import to_sarif
from epsinas_onnx.report.findings.text import to_text

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport
    from epsinas_onnx.check.rule import Rule

__all__ = ["ENDINGS", "Format", "render"]


class Format(StrEnum):
    """How a check's findings are written."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"
    GITHUB = "github"
    MARKDOWN = "markdown"


ENDINGS: Mapping[str, Format] = {
    ".txt": Format.TEXT,
    ".json": Format.JSON,
    ".xml": Format.JUNIT,
    ".sarif": Format.SARIF,
    ".md": Format.MARKDOWN,
}
"""Which format the ending of a file asks for."""


def render(
    report: CheckReport, format: Format, rules: Sequence[Rule] = (), *, verbose: bool = False, width: int | None = None
) -> str:
    """Return the report in a format; it ends with a line break and can be encoded as UTF-8.

    rules: those that were looked at, which SARIF describes. verbose, width: of the text, see `text.to_text`; a
    terminal gets colours from `text.print_text` instead.
    """
    match format:
        case Format.TEXT:
            return to_text(report, verbose=verbose, width=width)
        case Format.JSON:
            return to_json(report)
        case Format.JUNIT:
            return to_junit(report)
        case Format.SARIF:
            return to_sarif(report, rules)
        case Format.GITHUB:
            return to_github(report)
        case Format.MARKDOWN:
            return to_markdown(report)
