"""JUnit XML, read by junitparser."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import junitparser
import pytest
from hypothesis import given

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence
from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding, Severity
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, checked, finding, quick, report, reports


def cases(report: CheckReport) -> list[junitparser.TestCase]:
    text = render(report, Format.JUNIT).encode()
    root = ElementTree.fromstring(text)
    kinds = {"tests": "testcase", "failures": "failure", "errors": "error", "skipped": "skipped"}
    counts = {count: str(len(list(root.iter(kind)))) for count, kind in kinds.items()}
    assert {count: root[0].get(count) for count in kinds} == counts
    assert {count: root.get(count, counts[count]) for count in kinds} == counts
    [suite] = junitparser.JUnitXml.fromroot(root)
    return list(suite)


def expected(model: CheckedModel, fail_on: Severity) -> list[Finding | None]:
    failing = any(found.severity.reaches(fail_on) for found in model.counting())
    return list(model.findings) if failing else [None, *model.findings]


@quick
@given(reports)
def test_every_finding_is_a_case_that_comes_back_whole(report: CheckReport) -> None:
    wanted = [(model, found) for model in report.models for found in expected(model, report.fail_on)]
    read = cases(report)
    assert len(read) == len(wanted)
    for case, (model, found) in zip(read, wanted, strict=True):
        assert case.classname == escaped(model.model)
        if found is None:
            assert case.name == "check"
            assert case.is_passed
            continue
        assert case.name.startswith(found.rule)
        text = f"{statement(found)}\nfix: {sentence(found.fix)}"
        if found.ignored is None and not found.severity.reaches(report.fail_on):
            assert case.is_passed
            assert case.system_out == f"{found.severity}: {text}"
            continue
        [result] = case.result
        assert result.text == text
        if found.ignored is not None:
            assert isinstance(result, junitparser.Skipped)
            assert result.message == sentence(found.ignored)
        else:
            kind = junitparser.Error if found.rule == "unreadable" else junitparser.Failure
            assert isinstance(result, kind)
            assert (result.type, result.message) == (str(found.severity), statement(found))


@quick
@given(reports)
def test_a_failed_check_is_a_failed_suite(report: CheckReport) -> None:
    bad = (junitparser.Failure, junitparser.Error)
    assert any(isinstance(result, bad) for case in cases(report) for result in case.result) == report.failed


@quick
@given(reports)
def test_no_two_cases_of_a_model_have_one_name(report: CheckReport) -> None:
    for model in report.models:
        names = [case.name for case in cases(CheckReport((model,), report.fail_on, 1.0))]
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("node", [None, "conv", "conv (2)"])
def test_findings_of_one_rule_and_node_are_numbered(node: str | None) -> None:
    twice = finding(node=node)
    names = [case.name for case in cases(report(checked("a.onnx", twice, finding(node="conv (2)"), twice)))]
    assert len(set(names)) == 3
    assert names[0] == ("no-score" if node is None else f"no-score: {node}")


def test_the_seconds_of_the_cases_add_up_to_those_of_the_models() -> None:
    found = report(checked("a.onnx", finding(), finding(), seconds=1.5), checked("b.onnx", seconds=0.25), seconds=9.0)
    assert sum(case.time for case in cases(found)) == 1.75
    assert ElementTree.fromstring(render(found, Format.JUNIT).encode()).get("time") == "9.000"


def test_the_sample_reads_like_this() -> None:
    read = {(case.classname, case.name): case for case in cases(FULL)}
    assert list(read) == [
        ("models/good.onnx", "check"),
        ("models/yolo320n.onnx", "check"),
        ("models/yolo320n.onnx", "folded-batchnorm: /model.0/conv/Conv"),
        ("models/yolo320n.onnx", "opset-too-old"),
        ("models/transformer.onnx", "no-score: output"),
        ("models/transformer.onnx", "folded-batchnorm"),
        ("models/broken.onnx", "unreadable"),
    ]
    assert isinstance(read["models/broken.onnx", "unreadable"].result[0], junitparser.Error)
