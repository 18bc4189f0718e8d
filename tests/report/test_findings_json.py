"""The JSON of a report holds all of it: the report can be built again."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given

from epsinas_onnx.check.finding import CheckedModel, CheckReport, Finding, Severity
from epsinas_onnx.report.findings import Format, render
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.result import Status

from .samples import quick, reports


def built(record: dict[str, Any]) -> CheckReport:
    models = tuple(
        CheckedModel(
            entry["model"],
            tuple(Finding(**{**found, "severity": Severity(found["severity"])}) for found in entry["findings"]),
            Facts(**{**entry["facts"], "status": entry["facts"]["status"] and Status(entry["facts"]["status"])}),
            entry["seconds"],
        )
        for entry in record["models"]
    )
    return CheckReport(models, Severity(record["fail_on"]), record["seconds"])


@quick
@given(reports)
def test_the_report_can_be_built_again(report: CheckReport) -> None:
    record = json.loads(render(report, Format.JSON), parse_constant=lambda constant: 1 / 0)
    again = built(record)
    assert again.to_dict() == record == report.to_dict()
    assert [m.findings for m in again.models] == [m.findings for m in report.models]
    assert [m.facts for m in again.models] == [m.facts for m in report.models]
