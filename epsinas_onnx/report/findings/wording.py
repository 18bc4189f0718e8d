"""What every format says in the same words, and how text out of files is made harmless for all of them."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING

from epsinas_onnx._util.names import escaped

if TYPE_CHECKING:
    from epsinas_onnx.check.finding import CheckReport, Finding

UNREADABLE = "unreadable"
"""The rule whose findings say that a file could not be read: no broken rule, but a check that could not be made."""


def printable(text: str) -> str:
    r"""Return the text on one line, with an escape for each character that has no glyph.

    These are line breaks, control characters, lone surrogates and marks that turn the direction of writing: they end
    a line, move a cursor, cannot be encoded, are not allowed in XML, or make a name look like another.

    >>> printable("conv\n1\x1b[31m")
    'conv\\n1\\x1b[31m'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def statement(finding: Finding) -> str:
    """Return the message, printable, with the node in front where the message does not name it."""
    if not finding.node or f"'{finding.node}'" in finding.message:
        return printable(finding.message)
    return printable(f"node '{finding.node}': {finding.message}")


def posix_path(model: str) -> str:
    """Return a model's path with slashes, `escaped`, as a repository names it."""
    return escaped(PurePath(model).as_posix())


def verdict(report: CheckReport) -> str:
    """Return whether the check failed, as one word."""
    return "failed" if report.failed else "passed"
