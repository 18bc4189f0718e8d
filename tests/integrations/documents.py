"""The files that docs/ci.md shows, by the name that stands above each."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FILE = re.compile(r"^<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def shown_files() -> dict[str, str]:
    """Return the text of each file of docs/ci.md."""
    return {found["name"]: found["text"] for found in _FILE.finditer((ROOT / "docs" / "ci.md").read_text())}
