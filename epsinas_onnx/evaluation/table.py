"""Reads tables of architectures and their accuracies: CSV (gzipped too), and the benchmarks' own files."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from epsinas_onnx._util.bounded import TooMuch, read_at_most
from epsinas_onnx._util.memory import readable
from epsinas_onnx.errors import UsageError

FloatArray = npt.NDArray[np.float64]

MOST_TEXT = 2**29
"""Bytes of the longest table or list of results that is read: all of NAS-Bench-101 takes half of it."""


@dataclass(frozen=True)
class Table:
    """Rows of text under named columns, in the order of the file."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def numbers(self, column: str) -> FloatArray:
        """Return a column as float64 `[rows]`, NaN where a field is empty or says nan, none or null.

        Raises UsageError when there is no such column, or a field in it is no number.
        """
        self.require(column)
        return np.array([self._number(line, row[column], column) for line, row in enumerate(self.rows)], np.float64)

    def require(self, column: str) -> None:
        """Raise UsageError when there is no such column."""
        if column not in self.columns:
            raise UsageError(f"{self.name}: there is no column {column!r}; the columns are {', '.join(self.columns)}")

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Return the columns that any of the shell globs names, in the order given; raises UsageError for none."""
        found: dict[str, None] = {}
        for pattern in patterns:
            matched = [column for column in self.columns if fnmatchcase(column, pattern)]
            if not matched:
                self.require(pattern)
            found.update(dict.fromkeys(matched))
        return list(found)

    def having(self, column: str) -> Table:
        """Return the rows with a finite number in `column`; raises UsageError where there are none."""
        finite = np.isfinite(self.numbers(column))
        if not finite.any():
            raise UsageError(f"{self.name}: no row has a number in column {column!r}")
        return Table(self.name, self.columns, tuple(row for row, has in zip(self.rows, finite, strict=True) if has))

    def sampled(self, count: int, seed: int) -> Table:
        """Return `count` rows drawn at random without repetition, in the table's order; all where it has no more."""
        if count >= len(self.rows):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.rows), count, replace=False))
        return Table(self.name, self.columns, tuple(self.rows[index] for index in chosen))

    def with_columns(self, values: Sequence[Mapping[str, str]], columns: Sequence[str]) -> Table:
        """Return the table with further columns, one mapping a row; fields that a row lacks are empty."""
        rows = [{**row, **{c: more.get(c, "") for c in columns}} for row, more in zip(self.rows, values, strict=True)]
        return Table(self.name, (*self.columns, *columns), tuple(rows))

    def _number(self, line: int, text: str, column: str) -> float:
        if text.strip().lower() in ("", "nan", "none", "null"):
            return np.nan
        try:
            return float(text)
        except ValueError:
            raise UsageError(
                f"{self.name}, row {line + 1}: column {column!r} holds {text[:40]!r}, which is no number"
            ) from None


def read_table(path: Path) -> Table:
    """Return the table in `path`: a CSV with a header (gzipped where it ends in .gz), or a benchmark's own file.

    Raises UsageError when it cannot be read, has no rows, or a row has more fields than the header.
    """
    from epsinas_exporters.readers import is_benchmark_file, read_benchmark

    if is_benchmark_file(path):
        try:
            rows = read_benchmark(path)
        except (ValueError, OSError, ImportError) as error:
            raise UsageError(str(error)) from None
        return _table(str(path), list(rows[0]) if rows else [], rows)
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), restval="")
    try:
        csv.field_size_limit(2**24)  # a recipe of NAS-Bench-NLP may pass the standard limit
        rows = list(reader)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: is no CSV: {error}") from None
    too_long = next((number for number, row in enumerate(rows, start=1) if None in row), None)
    if too_long is not None:
        raise UsageError(
            f"{path}, row {too_long}: has more fields than the header has columns; quote fields with commas"
        )
    return _table(str(path), list(reader.fieldnames or []), rows)


def join(table: Table, keys: Sequence[str], other: Table, other_keys: Sequence[str]) -> Table:
    """Return `table` with the columns of `other` that it lacks, matched by architecture.

    keys, other_keys: the canonical architecture of each row of either; rows of `other` that match nothing are left
    out. Raises UsageError when no architecture is in both.
    """
    by_key: dict[str, Mapping[str, str]] = dict(zip(other_keys, other.rows, strict=True))
    new = [column for column in other.columns if column not in table.columns]
    if not any(key in by_key for key in keys):
        raise UsageError(f"{other.name}: none of its {len(other.rows)} architectures is in {table.name}")
    return table.with_columns([by_key.get(key, {}) for key in keys], new)


def _table(name: str, columns: Sequence[str], rows: Sequence[Mapping[Any, Any]]) -> Table:
    if not rows:
        raise UsageError(f"{name}: holds no rows; a table is a CSV with a header, and a row for each architecture")
    return Table(name, tuple(columns), tuple(rows))


def _text(path: Path) -> str:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            return read_at_most(stream, MOST_TEXT).decode("utf-8-sig")
    except TooMuch:
        raise UsageError(
            f"{path}: holds more than {readable(MOST_TEXT)} of text, which is the most that is read"
        ) from None
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a CSV ({error})") from None
