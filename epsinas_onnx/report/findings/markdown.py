"""Findings as Markdown for a comment on a pull request: a verdict, a table of the models, and the findings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from epsinas_onnx._util.names import escaped
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.report.findings.wording import statement, verdict
from epsinas_onnx.report.markup import code, plain

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding

_ROOM = 60_000  # characters; GitHub refuses a comment of more than 65,536
_LONG = 120  # characters of a fix that is folded away


def to_markdown(report: CheckReport) -> str:
    """Return the comment. Models with findings come first, and what exceeds a comment is counted."""
    models = sorted(report.models, key=lambda checked: not checked.counting())
    rows = _fitting([_row(checked) for checked in models], _ROOM // 2)
    blocks = [block for checked in models for block in _blocks(checked)]
    ignored = [_ignored(checked, f) for checked in models for f in checked.findings if f.ignored is not None]
    room = _ROOM - sum(map(len, rows))
    shown = _fitting(blocks, room)
    also = _fitting(ignored, room - sum(map(len, shown)))
    lines = [f"### epsinas-onnx check {verdict(report)}", "", f"{report.summary()}. It fails on: {report.fail_on}.", ""]
    lines += ["| model | score | parameters | findings |", "| :- | -: | -: | :- |", *rows, ""]
    lines += _left_out(len(models) - len(rows), "model", "in the table")
    lines += [*shown, ""] if shown else []
    lines += _left_out(len(blocks) - len(shown), "finding", "here")
    if also:
        lines += ["<details><summary>Ignored</summary>", "", *also, "", "</details>", ""]
    lines += _left_out(len(ignored) - len(also), "ignored finding", "here")
    return "\n".join(lines)


def _row(checked: CheckedModel) -> str:
    facts = checked.facts
    score = f"{facts.score:.6f}" if facts.score is not None else str(facts.status or "")
    parameters = "" if facts.parameters is None else f"{facts.parameters:,}"
    return f"| {code(escaped(checked.model))} | {score} | {parameters} | {_counts(checked)} |"


def _counts(checked: CheckedModel) -> str:
    found = [finding.severity for finding in checked.counting()]
    return ", ".join(f"{found.count(s)} {s}{'s' * (found.count(s) > 1)}" for s in Severity if s in found)


def _blocks(checked: CheckedModel) -> Iterator[str]:
    """Yield a list item for each finding that counts; the first has the model as its heading."""
    heading = f"#### {code(escaped(checked.model))}\n\n"
    for finding in checked.counting():
        item = f"- **{finding.severity}** {code(finding.rule)}: {plain(statement(finding))}"
        fix = f"Fix: {plain(finding.fix)}"
        if len(finding.fix) > _LONG:
            fix = f"<details><summary>How to fix it</summary>\n\n  {fix}\n\n  </details>"
        yield f"{heading}{item}\n\n  {fix}\n"
        heading = ""


def _ignored(checked: CheckedModel, finding: Finding) -> str:
    reason = plain(finding.ignored or "")
    return f"- {code(escaped(checked.model))}, {code(finding.rule)}: {plain(statement(finding))}. Ignored: {reason}"


def _left_out(count: int, what: str, where: str) -> list[str]:
    if not count:
        return []
    return [f"{count:,} more {what}{'s are' if count > 1 else ' is'} not {where}, since a comment has to end.", ""]


def _fitting(blocks: Sequence[str], room: int) -> list[str]:
    """Return as many of the first blocks as fit into `room` characters, a line break after each."""
    fitting = []
    for block in blocks:
        room -= len(block) + 1
        if room < 0:
            break
        fitting.append(block)
    return fitting
