"""The Markdown pages of the repository as lists of fenced blocks, each with what a comment in front of it says.

A comment on a line of its own in front of a block says what the tests do with it; readers of a page don't see it:

    <!-- file: NAME -->         the block is this file; it is written into the folder where the page's examples run
    <!-- not run: REASON -->    the examples of the block are not run
    <!-- needs: MODULE -->      they are run where this module is installed
    <!-- output of: COMMAND --> the block is what this command prints
    <!-- ci: NAME -->           .ci/run runs the block
    <!-- run: COMMANDS -->      what has to happen in between, and no reader needs to see
    <!-- examples: slow -->     all examples of the page are slow, or `exhaustive`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "models/README.md", *sorted(
    path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")
))  # fmt: skip
_COMMENT = re.compile(r"<!-- (?P<key>file|not run|needs|output of|ci|run):\s(?P<value>.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block, or a comment that is run.

    kind: the word behind the fence; `run` for a comment. line: where it begins. said: what comments say of it.
    printed: the `text` block right behind a `python` block.
    """

    kind: str
    text: str
    line: int
    said: dict[str, str] = field(default_factory=dict)
    printed: str | None = None


def blocks(page: str) -> list[Block]:
    """Return what a page shows, in order."""
    found: list[Block] = []
    said: dict[str, str] = {}
    previous = ""
    for token in MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8")):
        line = token.map[0] + 1 if token.map else 0
        if token.type == "html_block":
            for comment in _COMMENT.finditer(token.content):
                if comment["key"] == "run":
                    found.append(Block("run", comment["value"], line, said))
                    said = {}
                else:
                    said[comment["key"]] = comment["value"]
        elif token.type == "fence":
            kind = token.info.split(" ")[0]
            if kind == "text" and previous == "python" and not said:
                last = found.pop()
                found.append(Block(last.kind, last.text, last.line, last.said, token.content))
            else:
                found.append(Block(kind, token.content, line, said))
            said, previous = {}, kind
        else:
            said, previous = {}, token.type
    return found


def tier(page: str) -> str | None:
    """Return what a page says of its examples: `slow`, `exhaustive`, or nothing."""
    said = re.search(r"<!-- examples: (slow|exhaustive) -->", (ROOT / page).read_text(encoding="utf-8"))
    return said and said[1]


def shown_files(page: str) -> dict[str, str]:
    """Return the text of each file that a page shows, by its name."""
    return {block.said["file"]: block.text for block in blocks(page) if "file" in block.said}


def commands(text: str) -> Iterator[tuple[str, str]]:
    """Yield the commands of a console block, each with what it printed."""
    for chunk in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, printed = re.match(r"((?:[^\n]*\\\n)*[^\n]*\n?)(.*)", chunk, re.DOTALL).groups()  # type: ignore[union-attr]
        yield command.strip(), printed
