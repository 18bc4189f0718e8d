"""Scores as a Parquet file, for pandas, Polars, DuckDB and others: the fields of the JSON records, typed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from itertools import islice
from typing import BinaryIO

from epsinas_onnx._util.install import pip_install
from epsinas_onnx._util.names import escaped
from epsinas_onnx.errors import UsageError
from epsinas_onnx.scoring.result import Score

_GROUP = 10_000  # rows that are in memory at a time


def check_library() -> None:
    """Raise UsageError where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        raise UsageError(f"Parquet needs pyarrow; run '{pip_install('parquet')}'")


def write_parquet(scores: Iterable[Score], file: BinaryIO) -> None:
    """Write a row for each score, some at a time.

    Names are escaped as in CSV (`epsinas_onnx._util.names`), since Parquet holds no text that is not UTF-8. Other
    scores are a list of structures with their `name`; versions and seconds are maps.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = pa.struct(
        [("name", pa.string()), ("value", pa.float64()), ("status", pa.string()), ("reason", pa.string()),
         ("seconds", pa.float64())]
    )  # fmt: skip
    text, number = pa.string(), pa.float64()
    schema = pa.schema(
        [("model", text), ("score", number), ("raw_score", number), ("status", text), ("reason", text),
         ("weights", pa.list_(number)), ("input", text), ("batch", pa.int64()), ("provider", text),
         ("parameters", pa.int64()), ("nodes", pa.int64()), ("seconds", pa.map_(text, number)),
         ("output", pa.list_(text)), ("warnings", pa.list_(text)), ("norm_stats", text), ("seed", pa.int64()),
         ("arithmetic", text), ("order", number), ("float32_status", text), ("proxies", pa.list_(other)),
         ("proxy_batch", pa.int64()), ("versions", pa.map_(text, text))]
    )  # fmt: skip
    coming = iter(scores)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := [_row(score) for score in islice(coming, _GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _row(score: Score) -> dict[str, object]:
    record = score.to_dict()
    for key in ("model", "input"):
        record[key] = escaped(record[key])
    record["output"] = [escaped(name) for name in record["output"]]
    record["proxies"] = [{"name": name, **one} for name, one in record["proxies"].items()]
    for key in ("seconds", "versions"):
        record[key] = list(record[key].items())
    return record
