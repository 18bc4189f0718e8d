"""Text in Markdown, shown as it is: no markup, HTML, link, mention or row of a table comes of a name."""

from __future__ import annotations

import re

from epsinas_onnx._util.text import sentence, shown

_SPECIAL = re.compile(r"[&<>`*_\[\]|\\~$]|@|#(?=\d)|:(?=//)|(?<=www)\.", re.IGNORECASE)
_NOTIFIES = "@#"


def code(name: str) -> str:
    """Return a name as code; what a code span cannot hold in a table is written as HTML."""
    name = shown(name)
    if name and not set(name) & set("`|"):
        return f"`{name}`"
    return f"<code>{_escaped(name)}</code>"


def code_cell(name: str) -> str:
    """Return a name as code for a cell of a table, where a backslash in front of a bar takes its meaning."""
    name = shown(name)
    return f"`{name}`".replace("|", "\\|") if name and not set(name) & set("`\\") else code(name)


def plain(text: str) -> str:
    """Return a sentence, or what is none, as one line of Markdown that shows it."""
    return _escaped(sentence(text))


def _escaped(text: str) -> str:
    """Return printable text as Markdown that shows it.

    GitHub looks for mentions and references after the Markdown is read, so that escaping their sign is not enough:
    a zero-width space goes behind it.
    """
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};{'&#8203;' * (match[0] in _NOTIFIES)}", text)
