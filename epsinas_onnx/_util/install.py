"""Says how an extra of this package is installed: from where the reader installed the package itself."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_PACKAGE = "epsinas-onnx"


def pip_install(extra: str) -> str:
    """Return the command that adds an extra: for a clone, a file or a git URL another than for the package index."""
    origin = _origin()
    url = str(origin.get("url", ""))
    if origin.get("dir_info", {}).get("editable"):
        return f"pip install -e {_quoted(f'{_path(url)}[{extra}]')}"
    if "dir_info" in origin:
        return f"pip install {_quoted(f'{_path(url)}[{extra}]')}"
    named = f"{_PACKAGE}[{extra}]"
    if url:
        named += f" @ {_reference(url, origin)}"
    return f"pip install {_quoted(named)}"


def _origin() -> dict[str, Any]:
    """Return what the installer wrote about where the package came from: nothing where that is the index.

    The file: https://packaging.python.org/en/latest/specifications/direct-url/
    """
    try:
        read: Any = json.loads(metadata.distribution(_PACKAGE).read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _reference(url: str, origin: dict[str, Any]) -> str:
    control = origin.get("vcs_info", {})
    if control:
        wanted = control.get("requested_revision")
        url = f"{control.get('vcs', 'git')}+{url}" + (f"@{wanted}" if wanted else "")
    return url + (f"#subdirectory={origin['subdirectory']}" if "subdirectory" in origin else "")


def _path(url: str) -> str:
    return url2pathname(urlsplit(url).path)


def _quoted(text: str) -> str:
    """Return one word of a shell; in double quotes, which all shells know, where they take nothing's meaning."""
    return shlex.quote(text) if set(text) & set('"\\$`!') else f'"{text}"'
