"""Findings as workflow commands, which GitHub Actions shows as annotations."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.report.findings.wording import posix_path, statement

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport, Finding

_COMMANDS = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}

_SHOWN = 10  # annotations of one kind that GitHub shows of a step: docs of actions/toolkit, problem-matchers.md


def to_github(report: CheckReport) -> str:
    """Return a command for each finding that is not ignored, and the summary as a plain line.

    Where GitHub will drop some of them, a notice in front says how many there are.
    """
    commands = [_command(checked.model, finding) for checked, finding in report.counting()]
    counts = Counter(_COMMANDS[finding.severity] for _, finding in report.counting())
    dropped = [f"{counts[kind]:,} {kind}s" for kind in _COMMANDS.values() if counts[kind] > _SHOWN]
    if dropped:  # in front, so that it is never one of those that are dropped
        text = f"GitHub shows {_SHOWN} annotations of a kind, and there are {' and '.join(dropped)}: see the step's log"
        commands.insert(0, f"::notice title=epsinas-onnx check::{text}")
    return "\n".join([*commands, report.summary(), ""])


def _command(model: str, finding: Finding) -> str:
    properties = {"file": posix_path(model), "title": shown(finding.rule)}
    listed = ",".join(f"{name}={_escape_property(value)}" for name, value in properties.items())
    data = _escape_data(f"{statement(finding)}\nfix: {sentence(finding.fix)}")
    return f"::{_COMMANDS[finding.severity]} {listed}::{data}"


def _escape_data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _escape_property(text: str) -> str:
    return _escape_data(text).replace(":", "%3A").replace(",", "%2C")
