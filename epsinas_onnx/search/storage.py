"""Where a search is kept: an Optuna study in an Optuna storage, opened so that several processes may share it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import psutil

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import OutputError, UsageError
from epsinas_onnx.output.files import check_writable

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

T = TypeVar("T")

SETTINGS = "epsinas.search"
"""The attribute of a study that holds what the search was begun with."""
PROCESS = "process"
"""The attribute of a trial that says who is at it."""
_SQLITE, _JOURNAL = "sqlite:///", "journal:"
_WAIT = 60.0  # seconds that a process waits for another that writes the same file
_TRIES = 20


def optuna_module() -> Any:
    """Return the optuna module; raises UsageError with the command to run where it is not installed."""
    try:
        import optuna
    except ImportError:
        raise UsageError(f"a search needs Optuna; run '{pip_install('search')}'") from None
    return optuna


def storage_url(text: str | os.PathLike[str]) -> str:
    """Return the storage that a text names: a URL, or a path: SQLite, or a journal where it ends in .log or .jsonl."""
    name = os.fspath(text)
    if "://" in name or name.startswith(_JOURNAL):
        return name
    return f"{_JOURNAL}{name}" if Path(name).suffix in (".log", ".jsonl") else f"{_SQLITE}{name}"


def local_file(url: str) -> Path | None:
    """Return the file of a storage that is one."""
    for scheme in (_SQLITE, _JOURNAL):
        if url.startswith(scheme) and url != scheme:
            return Path(url.removeprefix(scheme))
    return None


def open_storage(where: str | os.PathLike[str] | None) -> Any:
    """Return the Optuna storage behind a path or URL, made where there is none; one in memory for None.

    Raises UsageError where the file is something else, OutputError where it cannot be written.
    """
    optuna = optuna_module()
    if where is None:
        return optuna.storages.InMemoryStorage()
    url = storage_url(where)
    path = local_file(url)
    if path is not None:
        check_writable(path, "--storage")
        _check_file(path, url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror or error}") from None
    try:
        if url.startswith(_JOURNAL):
            backend = optuna.storages.journal.JournalFileBackend(url.removeprefix(_JOURNAL))
            return optuna.storages.JournalStorage(backend)
        more = {"connect_args": {"timeout": _WAIT}} if url.startswith(_SQLITE) else {}
        return _again(lambda: optuna.storages.RDBStorage(url, engine_kwargs=more))
    except ImportError as error:
        raise UsageError(f"the storage {url} needs the package {error.name}") from None
    except Exception as error:  # each database has errors of its own
        raise UsageError(f"the storage {url} cannot be opened: {_first_line(error)}") from None


def close_storage(storage: Any) -> None:
    """Close the connections that a storage keeps for its next use; it opens others where there is one."""
    engine = getattr(storage, "engine", None)
    if engine is not None:
        storage.remove_session()
        engine.dispose()


def open_study(storage: Any, name: str, minimised: Sequence[bool], settings: Mapping[str, Any]) -> optuna.Study:
    """Return the study of a name, made where there is none, with its settings.

    Raises UsageError where it was begun with other settings, or by something else.
    """
    optuna = optuna_module()
    directions = ["minimize" if small else "maximize" for small in minimised]
    try:
        study: Any = _again(
            lambda: optuna.create_study(storage=storage, study_name=name, directions=directions, load_if_exists=True)
        )
        begun = study.user_attrs.get(SETTINGS)
        if begun is None and study.get_trials(deepcopy=False):
            raise UsageError(f"the study {name!r} of the storage is not one of search; name another with --study")
        if begun is None:
            study.set_user_attr(SETTINGS, json.dumps(settings, sort_keys=True))
            return study
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"the study {name!r} cannot be opened: {_first_line(error)}") from None
    earlier = json.loads(begun)
    for key, value in json.loads(json.dumps(settings)).items():
        if earlier.get(key) != value:
            raise UsageError(
                f"the study {name!r} was begun with {key} {_told(earlier.get(key))}, not {_told(value)}; go on with "
                "the same options, or name another study with --study"
            )
    return study


def this_process() -> str:
    """Return what tells this process from every other: its machine, its number, and when it began."""
    return f"{socket.gethostname()}:{os.getpid()}:{psutil.Process().create_time():.2f}"


def is_gone(process: str | None) -> bool:
    """Whether the process that an attribute names has ended; of another machine nobody knows."""
    host, _, rest = (process or "").rpartition(":")[0].rpartition(":")
    began = (process or "").rpartition(":")[2]
    if process is None or host != socket.gethostname():
        return process is None
    try:
        return f"{psutil.Process(int(rest)).create_time():.2f}" != began
    except (psutil.Error, ValueError):
        return True


def end_left(study: optuna.Study) -> int:
    """Mark trials as failed whose process was killed at them; return how many."""
    optuna = optuna_module()
    ended = 0
    running = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
    for trial in running:
        if is_gone(trial.user_attrs.get(PROCESS)) and PROCESS in trial.user_attrs:
            with contextlib.suppress(Exception):  # another process was faster
                study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
                ended += 1
    return ended


def is_left(trial: FrozenTrial) -> bool:
    """Whether a trial was never finished, and nobody is at it."""
    return "status" not in trial.user_attrs and (trial.state.is_finished() or is_gone(trial.user_attrs.get(PROCESS)))


def _check_file(path: Path, url: str) -> None:
    """Raise UsageError for a file that holds something else, before Optuna writes into it."""
    if not path.exists() or path.stat().st_size == 0:
        return
    if url.startswith(_JOURNAL):
        try:
            with path.open(encoding="utf-8") as file:
                if "op_code" in json.loads(file.readline()):
                    return
        except (OSError, ValueError, TypeError):
            pass
        raise UsageError(f"the storage {path} is no journal of Optuna; name another file with --storage")
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=_WAIT)) as base:
            tables = {row[0] for row in base.execute("select name from sqlite_master where type = 'table'")}
    except sqlite3.Error as error:
        raise UsageError(f"the storage {path} is no SQLite file ({error}); name another file with --storage") from None
    if tables and "studies" not in tables:
        raise UsageError(f"the storage {path} is a database of something else; name another file with --storage")


def _again(work: Callable[[], T]) -> T:
    """Return what comes of work that another process may be in the middle of as well: making tables, or a study."""
    for attempt in range(_TRIES):
        try:
            return work()
        except Exception as error:
            busy = any(word in str(error) for word in ("already exists", "locked", "UNIQUE", "no such table"))
            if not busy or attempt == _TRIES - 1:
                raise
            time.sleep(0.05 * (attempt + 1))
    raise AssertionError("the last attempt returns or raises")


def _told(value: Any) -> str:
    return (
        "nothing" if value in (None, [], "") else ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
