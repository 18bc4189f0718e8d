"""Results as a data frame of pandas or Polars, neither of which this package needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Literal

from epsinas_onnx._util.names import escaped
from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.members import finite
from epsinas_onnx.ranking.result import RankedSet
from epsinas_onnx.report.records import CSV_FIELDS, PROXY_FIELDS
from epsinas_onnx.report.results_data import other_scores, seconds_of
from epsinas_onnx.scoring.result import Score

Library = Literal["pandas", "polars"]

_WHOLE = frozenset({"batch", "parameters", "nodes", "seed", "place"})
_NUMBERS = frozenset({"score", "raw_score", "order", "seconds", "log_rank", "spread", "value"})


def to_dataframe(
    results: RankedSet | Iterable[Score] | Iterable[Mapping[str, Any]], library: Library = "pandas"
) -> Any:
    r"""Return results as a data frame, a row a model.

    Args:
        results: scores, as `score_many` returns them; their records (`Score.to_dict()`, lines of a file of results); or
            a ranking.
        library: `pandas` or `polars`, which must be installed.

    Returns:
        A `pandas.DataFrame` or a `polars.DataFrame`. Of scores, the columns of `score --format csv`, other scores as
        `proxies.swap.value` and so on; of a ranking those of `rank --format csv`. Numbers are float64, counts are
        integers, and what is missing is missing. Constants, outputs and warnings are joined to one text, seconds are
        the total, and names are written as in CSV: `\x0a` for what has no glyph.

    Raises:
        UsageError: the library is not installed, or there is no such one; or an element is no result.

    Examples:
        >>> frame = to_dataframe(score_many(["models/mlp.onnx"]), library="polars")  # doctest: +SKIP
    """
    if library not in ("pandas", "polars"):
        raise UsageError(f"there is no library {library!r}; the libraries are pandas and polars")
    try:
        module = import_module(library)
    except ImportError:
        raise UsageError(f"{library} is not installed; run 'pip install {library}'") from None
    columns = _of_ranking(results) if isinstance(results, RankedSet) else _of_records(_records(results))
    return _pandas(module, columns) if library == "pandas" else _polars(module, columns)


def _records(results: Iterable[Any]) -> list[Mapping[str, Any]]:
    records: list[Mapping[str, Any]] = []
    for one in results:
        record = one.to_dict() if isinstance(one, Score) else one
        if not isinstance(record, Mapping) or "model" not in record:
            raise UsageError(f"a data frame is made of scores, their records or a ranking, not of {type(one).__name__}")
        records.append(record)
    return records


def _of_records(records: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {field: [_cell(field, record) for record in records] for field in CSV_FIELDS}
    for name in other_scores(records):
        for key in PROXY_FIELDS:
            columns[f"proxies.{name}.{key}"] = [_nested(record, name, key) for record in records]
    return columns


def _cell(field: str, record: Mapping[str, Any]) -> Any:
    value = record.get(field)
    if field == "seconds":
        return seconds_of(record)
    if isinstance(value, (list, tuple)):
        value = ("; " if field == "warnings" else " ").join(map(str, value))
    return _typed(field, value)


def _nested(record: Mapping[str, Any], name: str, key: str) -> Any:
    entries = record.get("proxies")
    if isinstance(entries, Mapping):
        return _typed(key, (entries.get(name) or {}).get(key))
    return _typed(key, record.get(f"proxies.{name}.{key}"))


def _typed(field: str, value: Any) -> Any:
    if field in _WHOLE:
        number = finite(value)
        return None if number is None else int(number)
    if field in _NUMBERS:
        return finite(value)
    return None if value in (None, "") else escaped(str(value))


def _of_ranking(ranked: RankedSet) -> dict[str, list[Any]]:
    rest = [None] * len(ranked.unplaced)
    columns: dict[str, list[Any]] = {
        "place": [*(one.place for one in ranked.placed), *rest],
        "model": [
            *(escaped(one.model) for one in ranked.placed),
            *(escaped(other.model) for other in ranked.unplaced),
        ],
        "log_rank": [*(one.log_rank for one in ranked.placed), *rest],
        "spread": [*(one.spread for one in ranked.placed), *rest],
        "order": [*(one.order for one in ranked.placed), *rest],
    }
    for name in ranked.members:
        columns[f"{name}.value"] = [*(one.members[name].value for one in ranked.placed), *rest]
        columns[f"{name}.place"] = [*(one.members[name].place for one in ranked.placed), *rest]
    columns["reason"] = [*(None for _ in ranked.placed), *(escaped(one.reason) for one in ranked.unplaced)]
    return columns


def _pandas(module: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    kinds = {"whole": "Int64", "number": "float64", "text": "string"}
    return module.DataFrame({name: module.Series(values, dtype=kinds[_kind(name)]) for name, values in columns.items()})


def _polars(module: Any, columns: Mapping[str, Sequence[Any]]) -> Any:
    kinds = {"whole": module.Int64, "number": module.Float64, "text": module.String}
    return module.DataFrame(columns, schema={name: kinds[_kind(name)] for name in columns})


def _kind(column: str) -> str:
    field = column.rpartition(".")[2]
    return "whole" if field in _WHOLE else "number" if field in _NUMBERS else "text"
