"""Files all of whose names are hostile: no command shows a name raw, in any format, and rows stay rows."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from epsinas_onnx.report.findings import Format

from .builders import Done, command
from .report.samples import HOSTILE

LONG = "first" + "n" * 200_000 + "last"
NAMES = [name.encode("utf-8", "ignore").decode() or "empty" for name in HOSTILE]
SHORT = ("--batch", "64")
COMMAND = re.compile(r"^\s*::|##\w*\[", re.MULTILINE)


class Names:
    """Gives hostile names, each of them once."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds, self.number = kinds, 0

    def __call__(self) -> str:
        self.number += 1
        return f"{self.kinds[self.number % len(self.kinds)]}{self.number}"


def hostile(kinds: list[str], *, refused: bool = False) -> onnx.ModelProto:
    """Return a model that scores, or has an operator that nobody knows; all that can have a name has a hostile one."""
    name = Names(kinds)
    x, w, h, t, b, s, v, y, size = (name() for _ in range(9))
    local, function = name(), name()
    inside, outside = name(), name()
    body = [helper.make_node("Tanh", [inside], [outside], name=name())]
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(local, 1)]
    nodes = [
        helper.make_node("MatMul", [x, w], [h], name=name(), doc_string=name()),
        helper.make_node(function, [h], [t], name=name(), domain=local),
        helper.make_node("Add", [t, b], [s], name=name()),
        helper.make_node(name(), [s], [y], name=name(), domain=local)
        if refused
        else helper.make_node("MatMul", [s, v], [y], name=name()),
    ]
    graph = helper.make_graph(
        nodes, name(),
        [helper.make_tensor_value_info(x, TensorProto.FLOAT, [size, 3])],
        [helper.make_tensor_value_info(y, TensorProto.FLOAT, [size, 2])],
        [helper.make_tensor(n, TensorProto.FLOAT, d, [0.5] * (d[0] * d[-1] if len(d) > 1 else d[0]))
         for n, d in ((w, [3, 4]), (b, [4]), (v, [4, 2]))],
    )  # fmt: skip
    proto = helper.make_model(
        graph, opset_imports=opsets, ir_version=10, producer_name=name(), producer_version=name(), doc_string=name(),
        functions=[helper.make_function(local, function, [inside], [outside], body, opsets[:1])],
    )  # fmt: skip
    helper.set_model_props(proto, {name(): name() for _ in range(3)})
    return proto


def file_name(text: str) -> str:
    """Return a name that a file can have."""
    return text.replace("/", "_").replace("\0", "_").encode()[:200].decode("utf-8", "ignore") or "empty"


def written(folder: Path, kinds: list[str], named: str) -> list[str]:
    """Write a model that scores, one that is refused, and a file that is no model, and return their paths."""
    folder.mkdir()
    paths = [folder / f"{number}{file_name(named)}.onnx" for number in range(3)]
    paths[0].write_bytes(hostile(kinds).SerializeToString())
    paths[1].write_bytes(hostile(kinds, refused=True).SerializeToString())
    paths[2].write_text("no model")
    return list(map(str, paths))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return written(
        tmp_path_factory.mktemp("hostile") / "m", NAMES, "\x1b[31m\x9b2J\n::error::\t\r\u202e\u200b[red]|`<b>"
    )


def calls(files: list[str], folder: Path) -> Iterator[tuple[str, ...]]:
    out = str(folder / "\x1b[2J\n::error::out.onnx")
    for kind in ("table", "json", "jsonl", "csv", "markdown"):
        yield ("score", *files, *SHORT, "-f", kind)
    for file in files:
        for kind in ("table", "json"):
            yield ("inspect", file, "-f", kind)
        for kind in ("tree", "json"):
            yield ("explain", file, *SHORT, "-f", kind)
        yield ("strip", file, "-o", out)
        yield ("fill", file, "-o", out)
        yield ("rewrite", file, "-o", out, "--weight", "1")
    for kind in ("text", "json", "markdown"):
        yield ("diff", files[0], files[-2], *SHORT, "-f", kind)
    for one in Format:
        yield ("check", *files, "--verbose", "-f", one)
    yield ("baseline", "write", *files, "--baseline", str(folder / "\x1b[31m.json"))
    yield ("baseline", "diff", *files, "--baseline", str(folder / "\x1b[31m.json"))
    yield ("score", *files, "-o", str(folder / "nowhere\x1b[31m" / "x"))
    yield ("score", str(folder / "missing\x1b[31m*"))


def raw(text: str) -> str:
    """Return the characters of a text that no command may print."""
    return "".join(sorted({c for c in text if c != "\n" and not c.isprintable()}))


def assert_harmless(done: Done, args: tuple[str, ...]) -> None:
    text = done.out + done.err
    assert raw(text) == "", args
    assert "unexpected" not in text, args
    assert "Traceback" not in text, args
    if args[-1:] == (Format.GITHUB,):
        assert all(re.match(r"::(error|warning|notice) file=[^,]*,title=[\w-]+::|\d+ models", line)
                   for line in done.out.splitlines())  # fmt: skip
    else:
        assert not COMMAND.search(text), args


def test_no_command_shows_a_name_raw(files: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for args in calls(files, tmp_path):
        done = command(*args)
        assert_harmless(done, args)
        assert done.out or done.err, args
        said = capfd.readouterr()
        assert said.out + said.err == "", args


def test_rows_stay_rows_and_records_name_the_file_whole(files: list[str]) -> None:
    table, as_json, as_csv, markdown = (
        command("score", *files, *SHORT, "-f", kind).out for kind in ("table", "json", "csv", "markdown")
    )
    rows = [line for line in table.splitlines()[1:-1] if not line.startswith(" " * 5)]
    assert len(rows) == 3
    assert [record["model"] for record in json.loads(as_json)] == files
    assert [record["status"] for record in json.loads(as_json)] == ["ok", "error", "error"]
    assert as_csv.count("\n") == 4
    assert len(list(csv.DictReader(io.StringIO(as_csv)))) == 3
    assert sum(line.startswith("|") for line in markdown.splitlines()) == 5
    found = command("check", *files, "-f", "json").out
    assert [model["model"] for model in json.loads(found)["models"]] == files
    assert ET.fromstring(command("check", *files, "-f", "junit").out).tag == "testsuites"


ESCAPES = re.compile(r"\x1b\[[\d;]*m")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudoterminals")
def test_a_terminal_gets_no_escape_but_colours(files: list[str]) -> None:
    for args in (
        ("score", *files),
        ("inspect", files[0]),
        ("check", *files),
        ("diff", *files[:2]),
    ):
        text = ESCAPES.sub("", on_a_terminal(80, *args, *(() if args[0] == "check" else SHORT)))
        assert raw(text.replace("\r\n", "\n")) == "", args
        assert len(text) > 100


def on_a_terminal(columns: int, *args: str) -> str:
    import pty  # Windows has none

    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": str(columns)}
    with subprocess.Popen([sys.executable, "-m", "epsinas_onnx", *args], stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        chunks = []
        try:
            while chunk := os.read(ours, 4096):
                chunks.append(chunk)
        except OSError:  # how Linux says that the other side is closed
            os.close(ours)
    return b"".join(chunks).decode()


RECORDS = {"json", "jsonl", "csv", "sarif"}
"""Formats that hold what identifies a thing whole."""


@pytest.mark.exhaustive
def test_records_of_names_of_any_length_are_written(tmp_path: Path) -> None:
    files = written(tmp_path / "long", [LONG], "n" * 190)
    for args in calls(files[:2], tmp_path):
        if RECORDS & set(args):
            assert_harmless(command(*args), args)


def test_a_name_of_any_length_is_short_wherever_it_is_shown(tmp_path: Path) -> None:
    files = written(tmp_path / "long", [LONG], "n" * 190)
    for args in calls(files[:2], tmp_path):
        if RECORDS & set(args):
            continue
        done = command(*args)
        assert_harmless(done, args)
        lines = (done.out + done.err).splitlines()
        assert max(map(len, lines), default=0) < 5_000, args
    for record in json.loads(command("score", *files, *SHORT, "-f", "json").out):
        assert record["model"] in files
        assert len(record["reason"] or "") <= 1_000
        assert max(map(len, record["warnings"]), default=0) <= 1_000


letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(letters, min_size=1, max_size=12), min_size=1, max_size=5), st.text(letters, max_size=12))
def test_whatever_the_names_are(tmp_path_factory: pytest.TempPathFactory, kinds: list[str], named: str) -> None:
    files = written(tmp_path_factory.mktemp("any") / "m", kinds, named)
    done = command("score", *files, *SHORT)
    assert_harmless(done, ("score",))
    assert len([line for line in done.out.splitlines()[1:-1] if not line.startswith(" " * 5)]) == 3
    assert_harmless(command("inspect", files[0]), ("inspect",))
    assert_harmless(command("diff", *files[:2]), ("diff",))


def test_a_table_of_accuracies_may_have_columns_of_any_name(tmp_path: Path) -> None:
    names = ["\x1b[31m|`<b>\n::error::", "[red]" + "n" * 5_000, "##[error]\u202e"]
    archs = [f"|{a}~0|+|none~0|none~1|+|skip_connect~0|none~1|{b}~2|"
             for a in ("nor_conv_3x3", "skip_connect") for b in ("nor_conv_1x1", "nor_conv_3x3", "none")]  # fmt: skip
    path = tmp_path / "\x1b[31m\n.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["arch", *names])
        writer.writerows([[arch, n, n * n % 5, -n] for n, arch in enumerate(archs)])
    args = ("evaluate", str(path), "--space", "nasbench201", "--resamples", "0")
    for kind in ("table", "markdown", "json"):
        done = command(*args, "--column", names[0], "--scores", names[2], "--compare", names[1].replace("[", "[[]"),
                       "--top", "2", "-f", kind)  # fmt: skip
        assert done.code == 0, done.err
        assert_harmless(done, (kind,))
        assert kind == "json" or max(map(len, done.out.splitlines())) < 3_000
    for wrong in ((), ("--column", "\x1b[31m"), ("--column", names[0], "--scores", "\x9b2J")):
        done = command(*args, *wrong)
        assert done.code == 2
        assert_harmless(done, wrong)
        assert len(done.err) < 1_100
