"""Findings as JUnit XML, which GitLab, Jenkins and others show beside a pipeline's tests.

The format has no standard: this keeps to the schema of Jenkins (junit-10.xsd), the strictest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.report.findings.wording import UNREADABLE, statement

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding, Severity

_NAME = "epsinas-onnx check"


def to_junit(report: CheckReport) -> str:
    """Return one suite: a case for each finding, and a passing case `check` for each model that has no failing one.

    A finding that reaches `fail_on` is a failure, or an error where the file could not be read; a lesser one is a
    passing case with output; an ignored one is skipped.
    """
    cases = [case for checked in report.models for case in _cases(checked, report.fail_on)]
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": str(sum(case.find("error") is not None for case in cases)),
        "time": f"{report.seconds:.3f}",
    }
    skipped = str(sum(case.find("skipped") is not None for case in cases))
    root = ET.Element("testsuites", {"name": _NAME, **counts})
    suite = ET.SubElement(root, "testsuite", {"name": _NAME, **counts, "skipped": skipped})
    suite.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(checked: CheckedModel, fail_on: Severity) -> Iterator[ET.Element]:
    """Yield a model's cases; the first one has the model's time, since rules are not timed one by one."""
    seconds, taken = checked.seconds, {""}
    failing = any(finding.severity.reaches(fail_on) for finding in checked.counting())
    for finding in [*([] if failing else [None]), *checked.findings]:
        name = "check" if finding is None else _name(finding, taken)
        taken.add(name)
        names = {"classname": escaped(checked.model), "name": name}
        case = ET.Element("testcase", {**names, "time": f"{seconds:.3f}"})
        if finding is not None:
            _fill(case, finding, fail_on)
        yield case
        seconds = 0.0


def _name(finding: Finding, taken: set[str]) -> str:
    """Return a name that no other case of the model has: of those with one name GitLab keeps the first."""
    name = shown(f"{finding.rule}: {finding.node}" if finding.node else finding.rule)
    names = (name if number == 1 else f"{name} ({number})" for number in range(1, len(taken) + 2))
    return next(name for name in names if name not in taken)


def _fill(case: ET.Element, finding: Finding, fail_on: Severity) -> None:
    text = f"{statement(finding)}\nfix: {sentence(finding.fix)}"
    if finding.ignored is not None:
        ET.SubElement(case, "skipped", message=sentence(finding.ignored)).text = text
    elif finding.severity.reaches(fail_on):
        kind = "error" if finding.rule == UNREADABLE else "failure"
        ET.SubElement(case, kind, type=str(finding.severity), message=statement(finding)).text = text
    else:
        ET.SubElement(case, "system-out").text = f"{finding.severity}: {text}"
