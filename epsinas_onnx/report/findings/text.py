"""Findings for a person: in colours and wrapped on a terminal, plain and a line each elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from epsinas_onnx._util.names import escaped
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.report.findings.wording import printable, statement, verdict

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
_INDENT = "  "
_NARROWEST = 30  # columns of a message; where a terminal leaves fewer, the message runs on below its heading


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
            lines.put(Text(_path(checked), style="bold"))
            for finding in findings:
                _put(lines, finding, rules)
        elif verbose:
            lines.put(Text.assemble(_path(checked), ": ", ("nothing found", "green")))
        else:
            silent += 1
    if silent:
        lines.put(Text(f"{silent:,} {'model' if silent == 1 else 'models'} without findings", style="dim"))
    lines.put(
        Text(f"{verdict(report)}: {report.summary()}; {_rate(report)}", style="red" if report.failed else "green")
    )


def _shown(checked: CheckedModel, verbose: bool) -> tuple[Finding, ...]:
    return checked.findings if verbose else checked.counting()


def _path(checked: CheckedModel) -> str:
    """Return the model's path; one that a CI runner would take for a command is written as another that is the same."""
    path = escaped(checked.model)
    return f"./{path}" if path.lstrip().startswith("::") else path


def _put(lines: _Lines, finding: Finding, rules: int) -> None:
    dim = "dim " if finding.ignored is not None else ""
    head = Text.assemble(
        _INDENT,
        (f"{finding.severity:<7}", dim + _COLOURS[finding.severity]),
        _INDENT,
        (printable(f"{finding.rule:<{rules}}"), dim),
        _INDENT,
    )
    lines.put(head, Text(statement(finding), style=dim))
    margin = Text(" " * head.cell_len)
    lines.put(margin, Text(f"fix: {printable(finding.fix)}", style="dim"))
    if finding.ignored is not None:
        lines.put(margin, Text(f"ignored: {printable(finding.ignored)}", style="dim"))


def _rate(report: CheckReport) -> str:
    rate = f", {len(report.models) / report.seconds:,.1f} models/s" if report.seconds > 0 else ""
    return f"{report.seconds:,.2f} s{rate}"


class _Lines:
    """Puts lines on a console: a head, and a body that hangs behind it where lines are wrapped."""

    def __init__(self, console: Console, wrap: bool) -> None:
        self._console, self._wrap = console, wrap

    def put(self, head: Text, body: Text | None = None) -> None:
        if body is None or not self._wrap:
            self._console.print(head if body is None else head + body, soft_wrap=True)
            return
        indent = head.cell_len
        if self._console.width - indent < _NARROWEST:
            indent = 2 * len(_INDENT)
            if head.plain.strip():
                self._console.print(head, soft_wrap=True)
            head = Text(" " * indent)
        rows = body.wrap(self._console, max(1, self._console.width - indent), overflow="fold")
        for row in rows:
            row.rstrip()
            self._console.print(head + row, soft_wrap=True)
            head = Text(" " * indent)
