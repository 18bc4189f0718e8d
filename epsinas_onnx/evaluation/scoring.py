"""Scores of a table's architectures: computed and kept as they come, read from an earlier run, or from a column."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from epsinas_onnx._util.bounded import TooMuch, read_at_most
from epsinas_onnx._util.memory import readable
from epsinas_onnx._util.names import unescaped
from epsinas_onnx._util.text import to_json
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.evaluation.families import records_of
from epsinas_onnx.evaluation.table import MOST_TEXT, FloatArray, Table
from epsinas_onnx.graph.load import Buildable
from epsinas_onnx.inputs.minibatch import input_text, is_kind
from epsinas_onnx.output.lines import LineFile
from epsinas_onnx.scoring.result import Status

if TYPE_CHECKING:
    from epsinas_exporters.spaces import SearchSpace

PARAMETER_COLUMNS = ("nparams", "params", "num_params", "parameters", "trainable_parameters")


@dataclass(frozen=True)
class Scores:
    """A score for each row of a table, float64 `[rows]`, NaN where there is none.

    statuses: how many rows have which status. parameters: of each network, NaN where unknown. source: where the
    scores came from, in words. published: bool `[rows]`, which of the rows float32, the published procedure, scores
    too; None where the results do not say. orders: of each network, NaN where unknown (`Score.order`).
    """

    values: FloatArray
    statuses: Mapping[str, int]
    parameters: FloatArray
    source: str
    published: npt.NDArray[np.bool_] | None = None
    orders: FloatArray | None = None


@dataclass(frozen=True)
class Unreadable:
    """A row without an architecture, which becomes a result with an error."""

    name: str
    reason: str

    def build(self) -> NoReturn:
        """Raise the ValueError that says what is wrong."""
        raise ValueError(self.reason)


def networks(table: Table, space: SearchSpace) -> list[Buildable]:
    """Return the network of each row, named after its canonical architecture; of bad rows, one that says why.

    Raises UsageError with the first reason when no row holds an architecture.
    """
    found: list[Buildable] = []
    for number, row in enumerate(table.rows, start=1):
        try:
            found.append(space.network(space.from_row(row)))
        except ValueError as error:
            found.append(Unreadable(f"row {number}", f"{table.name}, row {number}: {error}"))
    if isinstance(found[0], Unreadable) and all(isinstance(network, Unreadable) for network in found):
        raise UsageError(found[0].reason)
    return found


def of_column(table: Table, column: str) -> Scores:
    """Return scores that are a column of the table itself."""
    values = table.numbers(column)
    values[~np.isfinite(values)] = np.nan
    return Scores(values, _counted(values), table_parameters(table), f"column {column}")


def of_records(table: Table, keys: Sequence[str], records: Mapping[str, Mapping[str, Any]], source: str) -> Scores:
    """Return the scores in `records` (by architecture) for the rows whose architectures are `keys`."""
    found = [records.get(key) for key in keys]
    values = np.array([_number(record, "score") for record in found], np.float64)
    statuses = Counter("missing" if record is None else str(record.get("status") or "ok") for record in found)
    ours = np.array([_number(record, "parameters") for record in found], np.float64)
    parameters = np.where(np.isfinite(ours), ours, table_parameters(table))
    told = [None if record is None else record.get("float32_status") or None for record in found]
    published = np.array([status == Status.OK for status in told]) if any(told) else None
    orders = np.array([_number(record, "order") for record in found], np.float64)
    return Scores(values, statuses, parameters, source, published, orders)


def table_parameters(table: Table) -> FloatArray:
    """Return the parameter counts that the table itself holds, NaN without such a column."""
    column = next((column for column in PARAMETER_COLUMNS if column in table.columns), None)
    return np.full(len(table.rows), np.nan) if column is None else table.numbers(column)


def read_records(path: Path) -> dict[str, dict[str, Any]]:
    """Return the records that `score` or `evaluate` wrote into `path` (.jsonl, .json or .csv), by model.

    Raises UsageError when the file is missing or holds no such records.
    """
    try:
        with path.open("rb") as stream:
            text = read_at_most(stream, MOST_TEXT).decode("utf-8")
        if path.suffix == ".csv":
            rows = csv.DictReader(io.StringIO(text, newline=""))
            return {unescaped(row["model"]): row for row in rows}
        if path.suffix == ".json":
            return {str(record["model"]): record for record in json.loads(text)}
        *lines, rest = text.split("\n")  # a rest without an end is a line that is being written, or was cut off
        return {name: record for name, record, _ in _records(lines if lines and not _is_json(rest) else [*lines, rest])}
    except TooMuch:
        raise UsageError(f"{path}: holds more than {readable(MOST_TEXT)}, which is the most that is read") from None
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such file") from None
    except (KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}: holds no results of score or evaluate (records that name no model)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path}: holds no results of score or evaluate ({error})") from None


def scored(networks: Sequence[Buildable], options: Mapping[str, Any], path: Path | None) -> Iterator[dict[str, Any]]:
    """Yield the record of each network, those that `path` holds first; every other is appended to it when it is there.

    path: a file of JSON lines, so that a run that was cut off goes on where it stopped; None writes nothing. What
    ended in an error is tried again, and so is what lacks another score that `options` ask for; the line of such a one
    stays until the new one is there, which holds the other scores of both. options: keyword arguments of `score_many`;
    the others come as they are done. Networks of one family, which compute the same, are run once
    (`evaluation.families`), unless other scores are asked for.

    Raises UsageError when another run is writing the file, or it holds results of other settings, and OutputError when
    it cannot be written.
    """
    if path is None:
        yield from records_of(networks, (), {}, options)
        return
    named = {network.name: network for network in networks}
    with LineFile(path, goes_on=True) as file:
        earlier = _resumed(file, path, named.keys(), options)
        done = {name: record for name, record in earlier.items() if not _lacks(record, options)}
        yield from (done[network.name] for network in networks if network.name in done)
        missing = [network for network in networks if network.name not in done]
        for record in records_of(missing, done.values(), named, options):
            before = earlier.get(record["model"], {}).get("proxies", {})
            record["proxies"] = {**before, **record.get("proxies", {})}
            try:
                file.append(to_json(record, indent=None))
            except OutputError:
                yield record
                raise
            yield record
        if len(done) < len(earlier):
            file.keep({name: line for name, _, line in _records(file.lines())}.values())


def _resumed(file: LineFile, path: Path, names: Set[str], options: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a file holds that is no error, and leave in it a line for each model that is not tried again."""
    try:
        found = {name: (record, line) for name, record, line in _records(file.lines())}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path}: holds no results of score or evaluate ({error})") from None
    done = {name: record for name, (record, _) in found.items() if record.get("status") != Status.ERROR}
    _check_settings(done, path, options)
    file.keep(line for name, (_, line) in found.items() if name in done or name not in names)
    return done


def _lacks(record: Mapping[str, Any], options: Mapping[str, Any]) -> bool:
    """Whether a record holds no result of another score that is asked for."""
    entries = record.get("proxies") or {}
    statuses = [entries.get(name, {}).get("status") for name in options.get("scores", ())]
    return any(status in (None, str(Status.ERROR)) for status in statuses)


def _records(lines: Iterable[str]) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield the model, the record and the line of each line that holds one."""
    for line in lines:
        if line.strip():
            record = json.loads(line)
            yield str(record["model"]), record, line


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _check_settings(records: Mapping[str, Mapping[str, Any]], path: Path, options: Mapping[str, Any]) -> None:
    """Raise UsageError where records were computed with other settings."""
    wanted: dict[str, Any] = {"weights": [float(weight) for weight in options["weights"]], "seed": options["seed"]}
    if options["inputs"] != "auto":
        wanted["input"] = input_text(options["inputs"])
    if is_kind(options["inputs"]):
        wanted["batch"] = options["batch"]
    for name, record in records.items():
        more = {"proxy_batch": options["proxy_batch"]} if options.get("scores") and record.get("proxies") else {}
        for key, value in {**wanted, **more}.items():
            if record.get(key) != value:
                raise _other_settings(path, f"{key} {record.get(key)}, not {value}, for {name[:80]}")
    asked = options.get("arithmetic", "auto")
    computed = {record.get("arithmetic") or "float32" for record in records.values()}
    # auto takes float32 where nothing else runs, but never for all networks of a search space
    if computed and (computed - {asked} if asked != "auto" else computed == {"float32"}):
        raise _other_settings(path, f"arithmetic {', '.join(sorted(computed))}, not {asked}")


def _other_settings(path: Path, what: str) -> UsageError:
    return UsageError(f"{path}: holds results of other settings ({what}); name another file, or remove this one")


def _number(record: Mapping[str, Any] | None, key: str) -> float:
    value = None if record is None else record.get(key)
    return np.nan if value in (None, "") else float(value)


def _counted(values: FloatArray) -> dict[str, int]:
    scored = int(np.isfinite(values).sum())
    return {"ok": scored, "unscored": len(values) - scored}
