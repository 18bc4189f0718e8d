"""What every format says in the same words."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from epsinas_onnx._util.names import escaped
from epsinas_onnx._util.text import sentence

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport, Finding

UNREADABLE = "unreadable"
"""The rule whose findings say that a file could not be read: no broken rule, but a check that could not be made."""


def statement(finding: Finding) -> str:
    """Return the message as one short line, with the node in front where the message does not name it."""
    message = sentence(finding.message)
    if not finding.node or f"'{finding.node}'" in finding.message or sentence(f"'{finding.node}'") in message:
        return message
    return sentence(f"node '{finding.node}': {finding.message}")


def posix_path(model: str) -> str:
    """Return a model's path with slashes, `escaped`, as a repository names it."""
    return escaped(PurePath(model).as_posix())


def verdict(report: CheckReport) -> str:
    """Return whether the check failed, as one word."""
    return "failed" if report.failed else "passed"
