"""Findings as SARIF 2.1.0, which GitHub code scanning and editors read.

Sections below are those of the standard: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import printable, sentence, shown, to_json
from epsinas_onnx.report.findings.wording import statement, verdict
from epsinas_onnx.versions import __version__

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport, Finding
    from epsinas_onnx.check.rule import Rule

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_ROOT = "%SRCROOT%"


def to_sarif(report: CheckReport, rules: Sequence[Rule]) -> str:
    """Return one run: the rules, the models with what is known of them, and every finding; ignored ones suppressed."""
    descriptors = {rule.name: _descriptor(rule) for rule in rules}
    for checked in report.models:
        for finding in checked.findings:  # of a rule that the caller did not list
            descriptors.setdefault(finding.rule, {"id": printable(finding.rule)})
    locations = [_location(checked.model) for checked in report.models]
    artifacts = {  # by location, since two paths may lead to one file, and SARIF lists a file once
        location["uri"]: {
            "location": location,
            "roles": ["analysisTarget"],
            "properties": {key: value for key, value in record["facts"].items() if value is not None},
        }
        for location, record in zip(locations, report.to_dict()["models"], strict=True)
    }
    index = {name: number for number, name in enumerate(descriptors)}
    files = {uri: number for number, uri in enumerate(artifacts)}
    run = {
        "tool": {
            "driver": {
                "name": "epsinas-onnx",
                "semanticVersion": __version__,
                "rules": list(descriptors.values()),
            }
        },
        "invocations": [{"executionSuccessful": True}],
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The folder that the check ran in."}}},
        "artifacts": list(artifacts.values()),
        "results": [
            result
            for checked, location in zip(report.models, locations, strict=True)
            for result in _results(checked.findings, {**location, "index": files[location["uri"]]}, index)
        ],
        "properties": {"verdict": verdict(report), "failOn": str(report.fail_on), "summary": report.summary()},
    }
    return to_json({"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]})


def _descriptor(rule: Rule) -> dict[str, Any]:
    return {
        "id": printable(rule.name),
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": _message(rule.summary),
        "fullDescription": _message(rule.why),
        "help": {
            **_message(f"{rule.summary}\n\n{rule.why}\n\nFix: {rule.fix}"),
            "markdown": f"{rule.summary}\n\n{rule.why}\n\n**Fix:** {rule.fix}",
        },
        "defaultConfiguration": {"level": str(rule.severity)},
    }


def _results(findings: Sequence[Finding], location: dict[str, Any], index: dict[str, int]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    seen: Counter[tuple[str, str | None]] = Counter()
    for finding in findings:
        place: dict[str, Any] = {
            "physicalLocation": {
                "artifactLocation": location,
                "region": {"startLine": 1},  # a graph has no lines, but code scanning shows no result without one
            }
        }
        if finding.node:
            node = shown(finding.node)
            place["logicalLocations"] = [{"name": node, "fullyQualifiedName": node, "kind": "member"}]
        result: dict[str, Any] = {
            "ruleId": printable(finding.rule),
            "ruleIndex": index[finding.rule],
            "level": str(finding.severity),
            "message": _message(f"{statement(finding)}\nFix: {sentence(finding.fix)}"),
            "locations": [place],
            "partialFingerprints": _fingerprints(finding, location["uri"], seen[finding.rule, finding.node]),
        }
        if finding.ignored is not None:
            result["suppressions"] = [{"kind": "external", "justification": sentence(finding.ignored)}]
        results.append(result)
        seen[finding.rule, finding.node] += 1
    return results


def _fingerprints(finding: Finding, uri: str, before: int) -> dict[str, str]:
    """Return what tells the finding from others, and stays when numbers in its message change.

    The name is the one that GitHub code scanning looks for; without it GitHub hashes line 1 of the file, and two
    findings in one file become one.
    """
    text = json.dumps([finding.rule, uri, finding.node, before])
    return {"primaryLocationLineHash": f"{hashlib.sha256(text.encode('ascii')).hexdigest()[:16]}:1"}


def _location(model: str) -> dict[str, str]:
    try:
        os.fsencode(model)
    except UnicodeEncodeError:  # no file of this system is called so
        model = escaped(model)
    path = Path(model)
    if path.is_absolute():
        return {"uri": path.as_uri()}
    return {"uri": quote(os.fsencode(path.as_posix())), "uriBaseId": _ROOT}


def _message(text: str) -> dict[str, str]:
    """Return a plain text message: braces doubled (section 3.11.5), and no link in it (section 3.11.6)."""
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}
