"""What is no store of ours, or is damaged, is refused with a sentence, and left byte for byte as it was."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from epsinas_onnx import OutputError, Store, UsageError, score_many
from epsinas_onnx.store import schema
from tests.builders import command, perceptron, save
from tests.store.holding import ask, entry, held


def other_application(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE results (source, settings)")
        connection.commit()


def newer(path: Path) -> None:
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


def large(path: Path) -> bytes:
    with Store(path) as store:
        for number in range(40):
            store.add(entry(f"m{number}"))
    return path.read_bytes()


def cut(size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(large(path)[:size])

    return make


def without_tables(path: Path) -> None:
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE others")


def garbage(path: Path) -> None:
    data = large(path)
    path.write_bytes(data[:4096] + b"\xa5" * (len(data) - 4096))


FOREIGN: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda path: path.write_text("a day's work\n"), "is no SQLite database, so it is no store of results"),
    "a model": (lambda path: save(perceptron(), path), "is no SQLite database"),
    "nothing": (lambda path: path.touch(), "is empty, so it is no store"),
    "the beginning of SQLite": (lambda path: path.write_bytes(b"SQLite format 3\0"), "is cut off (16 bytes)"),
    "another program's": (other_application, "is an SQLite database of another program"),
    "a newer version": (newer, f"by a newer version of epsinas-onnx (its tables are version {schema.VERSION + 1}"),
    "a page short": (cut(-4096), "is cut off"),
    "half a page": (cut(2048), "is cut off"),
    "without a table": (without_tables, "is damaged: tables are missing"),
    "garbage behind the first page": (garbage, "is damaged"),
}  # fmt: skip


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_foreign_or_damaged_file_is_refused_and_left_alone(tmp_path: Path, what: str) -> None:
    make, sentence = FOREIGN[what]
    folder = tmp_path / "there"
    folder.mkdir()
    path, model = folder / "results.db", save(perceptron(), tmp_path / "m.onnx")
    make(path)
    before = everything(folder)
    assert "results.db" in before
    commands = [
        ("score", model, "--store", str(path)), ("store", "list", str(path)), ("store", "export", str(path)),
        ("store", "vacuum", str(path)), ("store", "merge", str(path), str(path)),
    ]  # fmt: skip
    for words in commands:
        done = command(*words)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (words, done)
        assert sentence in done.err
        assert str(path) in done.err
        assert everything(folder) == before, words
    own = tmp_path / "own.db"
    Store(own).close()
    with Store(own) as store, pytest.raises(UsageError, match=r"results\.db"):
        store.merge(path)
    assert everything(folder) == before


def test_folders_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    model = save(perceptron(), tmp_path / "m.onnx")
    done = command("score", model, "--store", str(tmp_path))
    assert (done.code, done.out) == (2, "")
    assert "is a folder, and a store is a file" in done.err
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        done = command("score", model, "--store", str(path))
        assert (done.code, done.out) == (2, "")
        assert "is no regular file" in done.err


def test_a_store_that_is_missing_is_not_made_by_reading(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    for words in (("list", str(path)), ("export", str(path)), ("vacuum", str(path))):
        done = command("store", *words)
        assert (done.code, done.out) == (2, "")
        assert "there is no such file" in done.err
    assert not path.exists()


def test_a_store_where_nothing_can_be_made_is_an_output_that_fails(tmp_path: Path) -> None:
    model = save(perceptron(), tmp_path / "m.onnx")
    done = command("score", model, "--store", f"{model}/results.db")
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1)
    assert "cannot write" in done.err


def test_the_output_is_not_the_store(tmp_path: Path) -> None:
    model, path = save(perceptron(), tmp_path / "m.onnx"), tmp_path / "results.db"
    Store(path).close()
    before = path.read_bytes()
    done = command("score", model, "--store", str(path), "-o", str(path))
    assert (done.code, done.out) == (2, "")
    done = command("store", "export", str(path), "-o", str(path), "-f", "csv")
    assert (done.code, done.out) == (2, "")
    assert path.read_bytes() == before


def test_a_store_of_an_older_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:  # version 0 had no tables
        connection.execute(f"PRAGMA application_id = {schema.APPLICATION}")
    with Store(path) as store:
        store.add(entry("m"))
    assert held(path) == {"m": "ok"}
    assert ask(path, "PRAGMA user_version") == [(schema.VERSION,)]


def test_a_step_that_fails_leaves_the_older_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.db"
    with Store(path) as store:
        store.add(entry("m"))
    before = ask(path, "SELECT * FROM sqlite_master")
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, "CREATE TABLE more (a); CREATE TABLE results (a)"))
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    with pytest.raises(UsageError, match=r"results\.db"):
        Store(path)
    assert ask(path, "SELECT * FROM sqlite_master") == before
    assert held(path) == {"m": "ok"}
    assert ask(path, "PRAGMA user_version") == [(schema.VERSION - 1,)]


def test_a_store_that_another_program_has_locked_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.db"
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(UsageError, match=r"results.db: is locked by another program; wait until"):
            Store(path, wait=0.1)
        other.execute("ROLLBACK")


def test_results_are_held_while_another_program_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.db"
    monkeypatch.setattr("epsinas_onnx.store.store._AGAIN", 0.0)
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other, Store(path, wait=0.1) as store:
        other.execute("BEGIN IMMEDIATE")
        for name in ("one", "two"):
            store.add(entry(name))
        assert store.added == 0
        other.execute("ROLLBACK")
        store.add(entry("three"))
        assert store.added == 3
    assert held(path) == dict.fromkeys(("one", "two", "three"), "ok")


def test_a_store_that_is_locked_to_the_end_is_told(tmp_path: Path) -> None:
    path, model = tmp_path / "results.db", save(perceptron(), tmp_path / "m.onnx")
    Store(path).close()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        store = Store(path, wait=0.1)
        other.execute("BEGIN IMMEDIATE")
        assert [result.model for result in score_many([model], batch=4, store=store)] == [model]
        with pytest.raises(OutputError, match=r"is locked by another program; .*; 1 results of this run are not in it"):
            store.close()
        other.execute("ROLLBACK")
    assert held(path) == {}


@pytest.mark.parametrize("how", ["removed", "replaced"])
def test_a_store_that_is_gone_in_the_middle_is_told(tmp_path: Path, how: str) -> None:
    path = tmp_path / "results.db"
    store = Store(path)
    store.add(entry("one"))
    path.unlink()
    if how == "replaced":
        path.write_text("somebody else's")
    store.add(entry("two"))
    with pytest.raises(OutputError, match="was moved or removed while it was in use; 1 results of this run"):
        store.close()
    assert path.exists() == (how == "replaced")
    if how == "replaced":
        assert path.read_text() == "somebody else's"


def test_damage_that_is_met_in_the_middle_costs_no_row(tmp_path: Path) -> None:
    path, model = tmp_path / "results.db", save(perceptron(), tmp_path / "m.onnx")
    with Store(path) as store:
        for number in range(400):
            store.add(entry(f"m{number}"))
    data = path.read_bytes()
    whole = len(data) // 4096 * 3 // 4 * 4096  # what is read where it is opened lies in front
    path.write_bytes(data[:whole] + b"\xa5" * (len(data) - whole))
    done = command("score", model, "--store", str(path), "--batch", "4", "-f", "csv")
    assert done.code == 4, done
    assert f"{model}," in done.out
    assert f"{path}: is damaged; restore it from a copy" in done.err


# Disks that cannot be written: these need a small one.


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 512 KiB, unmounted at the end."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if sys.platform != "linux" or shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("only a superuser of Linux mounts a small disk")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, leaving: int = 0) -> Path:
    """Fill a disk but for some bytes."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    with filler.open("rb+") as file:
        file.truncate(max(filler.stat().st_size - leaving, 0))
    return filler


@pytest.mark.parametrize("form", ["csv", "output"])
def test_a_disk_that_gets_full_costs_no_row_and_the_run_goes_on_later(small: Path, tmp_path: Path, form: str) -> None:
    files = [save(perceptron(width=3 + number), tmp_path / "models" / f"m{number}.onnx") for number in range(8)]
    path, output = small / "results.db", tmp_path / "out.csv"
    Store(path).close()
    with Store(path) as keeps_its_log_small:  # so that there is room for some results, and not for all
        assert keeps_its_log_small.counts() == {}
        filler = fill(small, leaving=92_000)
        words = ("score", str(tmp_path / "models"), "--store", str(path), "--batch", "4", "-f", "csv")
        done = command(*words, *(("-o", str(output)) if form == "output" else ()))
    written = output.read_text() if form == "output" else done.out
    assert done.code == 4, done
    assert f"{path}: no space is left on its disk" in done.err
    assert "results of this run are not in it" in done.err
    assert [line.split(",")[0] for line in written.splitlines()[1:]] == files
    filler.unlink()
    kept = held(path)
    assert 0 < len(kept) < len(files)
    again = command(*words)
    assert again.code == 0
    assert f"{len(kept)} results found, {len(files) - len(kept)} added" in again.err
    assert set(held(path)) == set(files)


def test_a_full_disk_makes_no_store(small: Path, tmp_path: Path) -> None:
    model = save(perceptron(), tmp_path / "m.onnx")
    fill(small)
    done = command("score", model, "--store", str(small / "results.db"))
    assert (done.code, done.out, done.err.count("\n")) == (4, "", 1), done
    assert "cannot write" in done.err
    assert [file.name for file in small.iterdir()] == ["filler"]


def test_room_that_is_made_in_the_middle_is_used(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("epsinas_onnx.store.store._AGAIN", 0.0)
    path = small / "results.db"
    with Store(path) as store:
        store.add(entry("first"))
        filler = fill(small)
        for number in range(200):
            store.add(entry(f"m{number}"))
        assert store.added < 201
        filler.unlink()
        store.add(entry("last"))
        assert store.added == 202
    assert len(held(path)) == 202


@pytest.mark.parametrize("merged", ["merge", "export"])
def test_other_commands_say_that_a_disk_is_full(small: Path, tmp_path: Path, merged: str) -> None:
    other, path, output = tmp_path / "other.db", small / "results.db", small / "out.csv"
    large(other)
    Store(path).close()
    fill(small)
    before = path.read_bytes()
    words = {"merge": ("merge", str(path), str(other)), "export": ("export", str(other), "-o", str(output))}
    done = command("store", *words[merged])
    assert (done.code, done.err.count("\n")) == (4, 1), done
    (small / "filler").unlink()
    assert held(path) == {}
    assert path.read_bytes() == before
    assert not output.exists()


def test_a_read_only_disk_is_refused_for_writing_and_read(small: Path, tmp_path: Path) -> None:
    path, model = small / "results.db", save(perceptron(), tmp_path / "m.onnx")
    path.write_bytes(large(tmp_path / "results.db"))
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    done = command("score", model, "--store", str(path))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), done
    assert "cannot be written" in done.err
    done = command("store", "list", str(path))
    assert done.code == 0
    assert "40 results: 40 ok" in done.out
