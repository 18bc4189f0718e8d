"""Reads pages as a browser would: elements, addresses, text, and the data that a script gets."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any


class Page(HTMLParser):
    """A page. tags: of all elements. links: what attributes name to be loaded. text: outside of scripts and styles."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: dict[str, list[str]] = {}
        self.text = ""
        self.scripts: list[str] = []
        self.types: list[str | None] = []
        self._inside = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(str(value))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")
            self.types.append(dict(attrs).get("type"))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data!r}")

    @property
    def data(self) -> Any:
        """What the script gets."""
        return json.loads(self.scripts[0])


FRAME = {
    "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "p", "ul", "li", "section", "div", "span",
    "label", "input", "select", "option", "button", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td",
    "ol", "details", "summary", "noscript", "script", "strong",
}  # fmt: skip


def assert_closed(page: str) -> Page:
    """Check that a page loads nothing and runs its own script alone; return it as read."""
    read = Page(page)
    assert set(read.tags) <= FRAME
    assert not {"src", "href", "srcset", "action", "data", "poster"} & read.attributes.keys()
    assert not [name for name in read.attributes if name.startswith("on")]
    assert "url(" not in page
    assert "@import" not in page
    assert read.types == ["application/json", None]
    digest = base64.b64encode(hashlib.sha256(read.scripts[1].encode()).digest()).decode()
    policy = next(text for text in read.attributes["content"] if "default-src" in text)
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}';")
    assert read.scripts[0].isascii()
    assert not re.search(r"[<>&]", read.scripts[0])
    return read
