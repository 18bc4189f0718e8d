"""Reads the training logs of NAS-Bench-NLP (Klyuchnikov et al., IEEE Access 2022), one JSON file a recipe."""

from __future__ import annotations

import json
import math
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

_BROKEN = "broken log"
_LONGEST = 2**26
"""Bytes of the longest log that is read; the published ones are a thousandth of that."""


def read_logs(path: Path) -> list[dict[str, str]]:
    """Return a row for each log in a folder or in a .zip, .tar, .tar.gz or .tgz archive, in the order of their names.

    The columns are `log_name`, `status` (what the benchmark wrote, or `broken log: ...`), `num_params`, `test_loss` and
    `val_loss` after the last epoch ("" where that is no number), and `recepie`, as the benchmark spells it.

    Raises ValueError where there are no logs, or the archive is damaged.
    """
    try:
        rows = sorted((_row(name, text) for name, text in _logs(path)), key=lambda row: row["log_name"])
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{path}: cannot be read as an archive of logs ({error}); fetch it again") from None
    if not any(row["recepie"] for row in rows):
        raise ValueError(f"{path}: holds no training logs of NAS-Bench-NLP (JSON files with a 'recepie')")
    return rows


def _logs(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.is_dir():
        for file in path.rglob("*.json"):
            with file.open("rb") as log:
                yield file.name, log.read(_LONGEST + 1)
    elif path.suffix.lower() == ".zip":
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.endswith(".json"):
                    with archive.open(name) as log:
                        yield PurePosixPath(name).name, log.read(_LONGEST + 1)
    else:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".json"):
                    opened = archive.extractfile(member)
                    assert opened is not None
                    yield PurePosixPath(member.name).name, opened.read(_LONGEST + 1)


def _row(name: str, text: bytes) -> dict[str, str]:
    row = dict.fromkeys(("log_name", "status", "num_params", "test_loss", "val_loss", "recepie"), "")
    row["log_name"] = name
    if len(text) > _LONGEST:
        row["status"] = f"{_BROKEN}: longer than {_LONGEST:,} bytes"
        return row
    try:
        log = json.loads(text)
        recipe = log["recepie"]
        row["recepie"] = recipe if isinstance(recipe, str) else json.dumps(recipe)
        row["status"] = str(log.get("status", ""))
        row["num_params"] = str(log.get("num_params", ""))
        row["test_loss"] = _last(log.get("test_losses"))
        row["val_loss"] = _last(log.get("val_losses"))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:  # one broken log costs one row
        row["status"] = f"{_BROKEN}: {type(error).__name__}: {error}"
    return row


def _last(losses: Any) -> str:
    """Return the last loss, "" where there is none or it is not finite."""
    if not losses:
        return ""
    last = float(losses[-1])
    return repr(last) if math.isfinite(last) else ""
