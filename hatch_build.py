"""Builds the README of the distribution: what links to a file of the repository leads there from anywhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_RELATIVE = re.compile(r"(?P<before>(?P<picture>!)?\[[^\]]*\]\(|(?P<source>\bsrc=\"))(?P<path>(?!\w+:|#)[^)\"\s]+)")


class AbsoluteLinks(MetadataHookInterface):
    """Fills in `readme`, and needs `version` and the project's URL `Repository`.

    Settings: page and picture, how the repository shows a file and serves its bytes, with {repository}, {version} and
    {path} where those go.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the README, with Markdown's links and HTML's pictures absolute."""

        def absolute(found: re.Match[str]) -> str:
            form: str = self.config["picture" if found["picture"] or found["source"] else "page"]
            repository, version = metadata["urls"]["Repository"], metadata["version"]
            return found["before"] + form.format(repository=repository, version=version, path=found["path"])

        text = _RELATIVE.sub(absolute, Path(self.root, "README.md").read_text(encoding="utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": text}
