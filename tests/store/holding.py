"""What tests look at stores with: past the classes that are tested, with SQLite itself."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from epsinas_onnx.scoring.result import Score, Status
from epsinas_onnx.store.keys import Settings
from epsinas_onnx.store.tables import Entry

BATCH = ("--batch", "4")


def ask(path: Path, query: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


def held(path: Path) -> dict[str, str]:
    """Return the status of every model that a store holds, and find none twice; the file is whole."""
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]
    rows = ask(path, "SELECT json_extract(record, '$.model'), status FROM results")
    assert len(dict(rows)) == len(rows)
    return dict(rows)


def settings(name: str = "a", version: str = "1") -> Settings:
    text = json.dumps({"versions": {"epsinas-onnx": version}})
    return Settings(f"key {name} {version}", f"common {version}", text, 32, True)


def result(model: str, number: float | None = 0.5) -> Score:
    """Return a result: an error where there is no number."""
    return Score(
        model=model, score=number, raw_score=number, status=Status.ERROR if number is None else Status.OK,
        reason=None if number is not None else f"{model}: cannot be read", weights=(1e-7, 1.0), input="grey", batch=8,
        provider="CPUExecutionProvider", parameters=7, nodes=1, seconds={"total": 0.1}, arithmetic="exact",
    )  # fmt: skip


def entry(model: str, number: float | None = 0.5, of: Settings | None = None) -> Entry:
    source = f"source {model.encode(errors='replace')!r}"
    return Entry(source, "file", "", None, None, of or settings(), result(model, number))
