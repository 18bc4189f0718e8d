"""Findings for a person: in colours and wrapped on a terminal, plain and a line each elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.report.columns import fitted, put, wrapped
from epsinas_onnx.report.findings.wording import statement, verdict

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_INDENT = "  "
_NARROWEST = 50  # columns of a message; where a terminal leaves fewer, the message runs on below its heading


def to_text(report: CheckReport, *, verbose: bool = False, width: int | None = None) -> str:
    """Return the report as plain text, wrapped at `width`; None is for pipes and logs and wraps nothing.

    Unwrapped, no line starts with what a name brings along, such as a command to a CI runner.
    """
    stream = io.StringIO()
    print_text(report, Console(file=stream, color_system=None, width=width), verbose=verbose, wrap=width is not None)
    return stream.getvalue()


def print_text(report: CheckReport, console: Console, *, verbose: bool = False, wrap: bool = True) -> None:
    """Print the findings by model, and the summary.

    verbose: show ignored findings with their reasons, and models without findings, too; otherwise they are counted.
    """
    lines = _Lines(console, wrap)
    rules = max((len(f.rule) for checked in report.models for f in _shown(checked, verbose)), default=0)
    silent = 0
    for checked in report.models:
        findings = _shown(checked, verbose)
        if findings:
            lines.put(Text(lines.name(escaped(checked.model)), style="bold"))
            for finding in findings:
                _put(lines, finding, rules)
        elif verbose:
            lines.put(Text.assemble(lines.name(escaped(checked.model)), ": ", ("nothing found", "green")))
        else:
            silent += 1
    if silent:
        lines.put(Text(f"{silent:,} {'model' if silent == 1 else 'models'} without findings", style="dim"))
    style = "red" if report.failed else "green"
    lines.put(Text(), Text(f"{verdict(report)}: {report.summary()}; {_rate(report)}", style=style))


def _shown(checked: CheckedModel, verbose: bool) -> tuple[Finding, ...]:
    return checked.findings if verbose else checked.counting()


def _put(lines: _Lines, finding: Finding, rules: int) -> None:
    dim = "dim " if finding.ignored is not None else ""
    head = Text.assemble(
        _INDENT,
        (f"{finding.severity:<7}", dim + _COLOURS[finding.severity]),
        _INDENT,
        (f"{shown(finding.rule):<{rules}}", dim),
        _INDENT,
    )
    lines.put(head, Text(statement(finding), style=dim))
    margin = Text(" " * head.cell_len)
    lines.put(margin, Text(f"fix: {sentence(finding.fix)}", style="dim"))
    if finding.ignored is not None:
        lines.put(margin, Text(f"ignored: {sentence(finding.ignored)}", style="dim"))


def _rate(report: CheckReport) -> str:
    rate = f", {len(report.models) / report.seconds:,.1f} models/s" if report.seconds > 0 else ""
    return f"{report.seconds:,.2f} s{rate}"


class _Lines:
    """Puts lines on a console: a head, and a body that hangs behind it where lines are wrapped."""

    def __init__(self, console: Console, wrap: bool) -> None:
        self._console, self._wrap = console, wrap

    def name(self, model: str) -> str:
        """Return a model's name as it fits a line."""
        return fitted(shown(model), self._console.width) if self._wrap else shown(model)

    def put(self, head: Text, body: Text | None = None) -> None:
        if body is None or not self._wrap:
            put(head if body is None else head + body, self._console)
            return
        indent = head.cell_len
        if self._console.width - indent < _NARROWEST:
            indent = 2 * len(_INDENT)
            if head.plain.strip():
                put(head, self._console)
            head = Text(" " * indent)
        for line in wrapped(body.plain, max(1, self._console.width - indent)):
            put(head + Text(line, style=body.style), self._console)
            head = Text(" " * indent)
