"""What the site's builder does beside mkdocs: pages that lie elsewhere in the repository, and parts of results."""

from __future__ import annotations

import dataclasses
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "models/README.md": "models.md",
    "epsinas_onnx/lump/README.md": "lump.md",
}
"""Where the site has a page that lies outside docs/."""
_TARGET = re.compile(r'(?P<before>\]\(|<img src=")(?P<path>[^)"#:\s]+)(?P<anchor>#[^)"\s]*)?(?=[)"])')
_PARTS = re.compile(r"^<!-- parts of (?P<name>\w+) -->$", re.MULTILINE)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages that lie elsewhere."""
    for source, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links that hold in the repository into links that hold in the site, and list the parts of a result."""
    here = page.file.src_uri
    source = next((source for source, name in ELSEWHERE.items() if name == here), f"docs/{here}")

    def in_site(found: re.Match[str]) -> str:
        target = normpath(PurePosixPath(source).parent / found["path"])
        if target not in ELSEWHERE and not target.startswith("docs/"):  # a file that is no page of the site
            return f"{found['before']}{REPOSITORY}/blob/main/{target}{found['anchor'] or ''}"
        there = ELSEWHERE.get(target, target.removeprefix("docs/"))
        return found["before"] + relpath(there, PurePosixPath(here).parent) + (found["anchor"] or "")

    return _PARTS.sub(lambda found: "\n\n".join(_described(found["name"])), _TARGET.sub(in_site, markdown))


def _described(name: str) -> Iterator[str]:
    """Yield the directive that describes each record which a public one holds."""
    import epsinas_onnx

    for part in list(dict.fromkeys(_parts(getattr(epsinas_onnx, name))))[1:]:
        yield f"::: {part.__module__}.{part.__qualname__}\n    options:\n      heading_level: 4"


def _parts(hint: Any) -> Iterator[type]:
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        yield hint
        for field in typing.get_type_hints(hint).values():
            yield from _parts(field)
    for inner in typing.get_args(hint):
        yield from _parts(inner)
