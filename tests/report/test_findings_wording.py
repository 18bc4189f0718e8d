"""Text out of files is made harmless without losing what it says, and each format is chosen by its name."""

from __future__ import annotations

import pytest
from hypothesis import given

from epsinas_onnx.check.finding import CheckReport
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import printable, statement

from .samples import FULL, RULES, finding, quick, reports, texts


@quick
@given(texts)
def test_printable_text_is_one_line_that_can_be_written_anywhere(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert len(shown.splitlines()) <= 1
    shown.encode()


@quick
@given(texts)
def test_what_is_printable_stays_and_the_rest_can_be_read_back(text: str) -> None:
    doubled = text.replace("\\", "\\\\")
    written = "".join(c if c.isascii() else c.encode("unicode_escape").decode() for c in printable(doubled))
    assert written.encode().decode("unicode_escape") == text
    if text.isprintable():
        assert printable(text) == text


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
def test_each_format_can_be_encoded(format: Format, report: CheckReport) -> None:
    assert "\0" not in render(report, format, RULES).encode().decode()
