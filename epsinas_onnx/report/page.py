"""A self-contained HTML page: its frame and style, light and dark, and data for its script; names are text alone.

A page loads nothing, and its policy lets a browser load nothing and run no other script than the page's own. What comes
from files reaches it as escaped text, or as JSON that no markup can end, of which the script makes text.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from epsinas_onnx._util.text import sentence, to_json

_FOLDER = Path(__file__).parent / "pages"
_MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def escaped(text: str) -> str:
    """Return text as HTML that shows it, in an element or an attribute."""
    return html.escape(text)


def listed(texts: Iterable[str]) -> str:
    """Return sentences as an HTML list, nothing where there are none."""
    items = "".join(f"<li>{escaped(text[:1].upper() + text[1:])}.</li>\n" for text in map(sentence, texts))
    return f"<ul>\n{items}</ul>\n" if items else ""


def shared_style() -> str:
    """Return the style that all pages share."""
    return (_FOLDER / "page.css").read_text(encoding="utf-8")


def page(title: str, body: str, *, data: Any, scripts: tuple[str, ...]) -> str:
    """Return a page whose scripts draw data.

    title: plain text. body: HTML. data: plain JSON types. scripts: names of files in the folder `pages`, run as one.
    """
    code = "".join((_FOLDER / name).read_text(encoding="utf-8") for name in scripts)
    script = f'(() => {{\n"use strict";\n{code}}})();\n'
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'"
    )
    body += (
        '<noscript><p class="note">This page draws its tables with a script of its own, and scripts are switched off '
        "here.</p></noscript>\n"
    )
    behind = f'<script type="application/json" id="data">{embedded(data)}</script>\n<script>{script}</script>\n'
    return framed(title, body, policy=policy, behind=behind)


def framed(title: str, body: str, *, policy: str = "", behind: str = "", style: str = "") -> str:
    """Return a page of HTML. policy: what it may load and run. behind: HTML that follows. style: more of it."""
    secured = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n' if policy else ""
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n{secured}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{shared_style()}{style}</style></head>\n<body>\n<main>\n{body}"
        f"</main>\n{behind}</body></html>\n"
    )


def embedded(data: Any) -> str:
    """Return data as JSON in a script element, which no text in it can end: printable ASCII without markup."""
    return to_json(data, indent=None).rstrip("\n").translate(_MARKUP)
