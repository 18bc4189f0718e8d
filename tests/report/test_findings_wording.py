"""What all formats of a check have in common: each says every finding, and can be written anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given

from epsinas_onnx.check.finding import CheckReport
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, RULES, finding, quick, reports


def test_a_node_is_named_once() -> None:
    assert statement(finding(message="node 'a' is odd", node="a")) == "node 'a' is odd"
    assert statement(finding(message="a tensor is odd", node="a")) == "node 'a': a tensor is odd"
    assert statement(finding(message="it is odd", node=None)) == "it is odd"
    assert statement(finding(message="it is odd", node="")) == "it is odd"


@pytest.mark.parametrize("format", Format)
def test_each_format_names_every_model_with_findings_and_its_rule(format: Format) -> None:
    text = render(FULL, format, RULES, verbose=True)
    assert text.endswith("\n")
    for checked in FULL.models:
        for found in checked.counting():
            assert checked.model in text
            assert found.rule in text


@pytest.mark.parametrize("format", Format)
@quick
@given(report=reports)
def test_each_format_holds_printable_lines_and_can_be_encoded(format: Format, report: CheckReport) -> None:
    text = render(report, format, RULES)
    text.encode()
    assert all(line.isprintable() for line in text.split("\n"))
    assert not any(line.lstrip().startswith("##[") or "##[" in line for line in text.split("\n"))
