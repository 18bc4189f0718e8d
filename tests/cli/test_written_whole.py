"""Files are written whole or not at all, and what cannot be written is shown."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import onnx
import pytest

from epsinas_onnx import score
from epsinas_onnx.output.lines import LineFile
from epsinas_onnx.report.records import to_json_line
from tests.builders import Done, command, perceptron, save
from tests.tiers import tiered

from .writing import ARCHS, EVALUATE, contents, everything, filled


@pytest.fixture(scope="module", autouse=True)
def fonts() -> None:
    """Have matplotlib write its list of fonts now: it may not be able to in a process with little room."""
    font_manager = pytest.importorskip("matplotlib.font_manager")
    assert font_manager.fontManager.ttflist


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return everything(tmp_path, monkeypatch)


ROOM = 60
"""Bytes that a file may hold in the tests of full disks."""
LIMITED = """
import resource, signal, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))
if {killed}:
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
from epsinas_onnx.cli.main import main
main()
"""
LARGE: dict[str, tuple[str, ...]] = {
    **{f"score -f {kind}": ("score", "good.onnx", "--batch", "8", "-f", kind, "-o", "{out}")
       for kind in ("table", "json", "jsonl", "csv", "markdown", "html")},
    **{f"check {kind}": ("check", "good.onnx", "-r", kind + "={out}")
       for kind in ("text", "json", "junit", "sarif", "markdown")},
    "baseline": ("baseline", "write", "good.onnx", "-b", "{out}"),
    "plot": (*EVALUATE, "--scores", "earlier.jsonl", "--plot", "{out}"),
    "export": ("export", "nasbench201", ARCHS[0], "-o", "."),
    "strip": ("strip", "good.onnx", "-o", "{out}"),
    "fill": ("fill", "good.onnx", "-o", "{out}"),
    "rewrite": ("rewrite", "good.onnx", "-w", "1", "-o", "{out}"),
}  # fmt: skip
"""Commands whose output is larger than that."""
IN_A_WORKER = ("strip", "fill", "rewrite")
FIRST = ("score -f csv", "score -f jsonl", "check sarif", "baseline", "plot", "fill")
"""One of each way of writing."""
SECOND = ("export", "score -f html")
OTHERS = LARGE.keys() - {*FIRST, *SECOND}
NAMES = tiered(LARGE, slow=SECOND, exhaustive=OTHERS)
KILLED = tiered(LARGE, slow=SECOND, exhaustive=OTHERS | {"check sarif", "baseline"})
"""Those two are written as the file of comma-separated values is."""


def limited(args: Sequence[str], *, room: int = ROOM, killed: bool = False) -> Done:
    """Run the program where a file holds no more than `room` bytes, which ends it or is an error like a full disk."""
    run = [sys.executable, "-B", "-c", LIMITED.format(room=room, killed=killed), *args]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def old_output(name: str) -> Path:
    from epsinas_exporters import spaces

    if name == "export":
        target = Path(spaces.get("nasbench201").file_name(ARCHS[0]))
    else:
        target = Path("old.png" if name == "plot" else "old.json")
    target.write_text('{"models": {}}\n')
    return target


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
@pytest.mark.parametrize("name", KILLED)
def test_a_run_that_is_killed_while_it_writes_leaves_the_old_file(folder: Path, name: str) -> None:
    target = old_output(name)
    before = target.read_bytes()
    done = limited(filled(LARGE[name], str(target)), killed=True)
    assert done.code < 0 or name in IN_A_WORKER, done.err  # which Python makes take it for an error
    assert target.read_bytes() == before


SHOWN = {"score": "good.onnx", "check": "1 model checked", "baseline": "good.onnx: score", "plot": "coverage: "}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit of file sizes")
@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_is_a_sentence_and_what_was_computed_is_shown(folder: Path, name: str) -> None:
    target = old_output(name)
    before = contents(folder)
    done = limited(filled(LARGE[name], str(target)))
    assert done.code == 4, done.err
    assert done.err == f"Error: cannot write {target}: File too large\n"
    assert SHOWN.get(name.split()[0], "") in done.out
    assert contents(folder) == before


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("args", [("inspect", "good.onnx"), ("spaces",)])
def test_a_full_disk_under_standard_output_is_a_sentence(folder: Path, args: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "epsinas_onnx", *args], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (4, "Error: cannot write standard output: No space left on device\n")


def test_scores_that_find_no_room_midway_are_whole_lines_and_are_all_shown(folder: Path) -> None:
    models = [save(perceptron(width=4 + number), folder / f"{number}.onnx") for number in range(4)]
    room = len(to_json_line(score(models[0], batch=8))) * 2
    done = limited(["score", *models, "--batch", "8", "-o", "rows.jsonl"], room=room)
    assert done.code == 4
    kept = [json.loads(line)["model"] for line in Path("rows.jsonl").read_text().splitlines()]
    assert 1 <= len(kept) < 4
    assert [json.loads(line)["model"] for line in done.out.splitlines()] == models


# What is no regular file, and what stays of one that was there


def test_a_link_and_permissions_stay(folder: Path) -> None:
    Path("real").mkdir()
    target = Path("real/scores.csv")
    target.write_text("old")
    target.chmod(0o640)
    Path("link.csv").symlink_to(target)
    assert command("score", "good.onnx", "-o", "link.csv").code == 0
    assert Path("link.csv").is_symlink()
    assert target.read_text().startswith("model,score")
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert [path.name for path in Path("real").iterdir()] == ["scores.csv"]


@pytest.mark.parametrize("name", ["score -f csv", "score -f jsonl", "check sarif", "strip", "baseline"])
def test_a_new_file_has_the_usual_permissions_and_missing_folders_are_made(folder: Path, name: str) -> None:
    assert command(*filled(LARGE[name], "new/folder/out")).code == 0
    Path("plain").write_text("")
    assert Path("new/folder/out").stat().st_mode == Path("plain").stat().st_mode


@contextlib.contextmanager
def standard_output_is(file: BinaryIO) -> Iterator[None]:
    """Give this process another standard output, by its number too, as a shell does for a new process."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(file.fileno(), 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files")
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_pipes_devices_and_standard_output_are_written_as_they_come(folder: Path, kind: str) -> None:
    args = ("score", "good.onnx", "--batch", "8", "-f", kind, "-o")
    assert command(*args, "/dev/null").code == 0
    for name in ("-", "/dev/stdout", "/dev/fd/1"):
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as pipe:
            with os.fdopen(writing, "wb") as stream, standard_output_is(stream):
                assert command(*args, name).code == 0
            assert b"good.onnx" in pipe.read()
    assert not Path("-").exists()
    os.mkfifo("pipe")
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert command(*args, "pipe").code == 0
    reader.join()
    assert "good.onnx" in read[0]
    with Path("log").open("ab") as log:
        log.write(b"first\n")
        log.flush()
        with standard_output_is(log):
            assert command(*args, "/dev/stdout").code == 0
    assert Path("log").read_text().startswith("first\n")
    assert "good.onnx" in Path("log").read_text()


def test_a_model_goes_to_standard_output(folder: Path) -> None:
    run = [sys.executable, "-m", "epsinas_onnx", "strip", "good.onnx", "-o", "-"]
    done = subprocess.run(run, capture_output=True, check=True)
    assert [node.op_type for node in onnx.load_from_string(done.stdout).graph.node][-3:] == ["MatMul", "Tanh", "Gemm"]


# One run at a time


def test_a_second_run_is_refused_while_one_writes_the_same_lines(folder: Path) -> None:
    before = Path("earlier.jsonl").read_bytes()
    with LineFile("earlier.jsonl", goes_on=True):
        for args in (("score", "good.onnx", "-f", "jsonl"), EVALUATE):
            done = command(*args, "-o", "earlier.jsonl")
            assert (done.code, done.out) == (2, "")
            assert done.err.startswith("Error: another run is writing earlier.jsonl; ")
        assert Path("earlier.jsonl").read_bytes() == before
    assert command("score", "good.onnx", "-f", "jsonl", "-o", "earlier.jsonl").code == 0


def test_a_lock_goes_with_its_process(folder: Path) -> None:
    code = "import os, signal; from epsinas_onnx.output.lines import LineFile\nfile = LineFile('rows', goes_on=True)\n"
    code += "file.append('kept\\n')\nos.kill(os.getpid(), signal.SIGKILL)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode != 0
    with LineFile("rows", goes_on=True) as file:
        assert file.lines() == ["kept\n"]


def test_lines_take_the_place_of_older_ones_once_there_is_a_first(folder: Path) -> None:
    Path("rows").write_text("old\n")
    with LineFile("rows", goes_on=False) as file:
        assert Path("rows").read_text() == "old\n"
        file.append("new\n")
        assert Path("rows").read_text() == "new\n"
        file.append("newer\n")
    assert Path("rows").read_text() == "new\nnewer\n"
