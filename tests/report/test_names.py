"""Names of files can be written in every format, and are read back as they were."""

from __future__ import annotations

import csv
import html
import io
import json
import os
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path
from urllib.parse import unquote_to_bytes
from xml.etree import ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from epsinas_onnx._util.names import escaped, unescaped
from epsinas_onnx.check.baseline import read_baseline
from epsinas_onnx.evaluation.scoring import read_records
from tests.builders import command, perceptron, save

from .samples import quick

NAMES = [
    "plain.onnx", "café.onnx", "caf\udce9.onnx", "two\nlines.onnx", "\x1b[31mred.onnx", "a\rb\tc.onnx",
    "\x85\u2028.onnx", "back\\slash.onnx", "\\x41.onnx", "\\\\.onnx", "a|b`c.onnx", "\udcff\udcfe\\.onnx",
    "\u202eright.onnx", 'q"u,o;t.onnx',
]  # fmt: skip


def assert_one_printable_line(text: str) -> None:
    assert text.encode().decode() == text
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")]


@quick
@given(st.one_of(st.text(), st.text("\\xu0c1\udce9U\n"), st.binary().map(os.fsdecode)))
@example("\\")
@example("\\x1\n")
@example("\\U00110000")
def test_every_name_is_one_printable_line_and_is_read_back(name: str) -> None:
    assert_one_printable_line(escaped(name))
    assert unescaped(escaped(name)) == name
    if name.isprintable() and "\\" not in name:
        assert escaped(name) == name


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of each name."""
    folder = tmp_path_factory.mktemp("models")
    for name in NAMES:
        save(perceptron(), folder / name)
    return folder


def run(folder: Path, *args: str) -> str:
    """Return what the program prints where it is in a folder."""
    program = [sys.executable, "-m", "epsinas_onnx", *args]
    done = subprocess.run(program, cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def in_markdown(row: str, column: int = 1) -> str:
    """Return the name in a row of a Markdown table."""
    cell = row.replace("\\|", "&#124;").split("|")[column + 1].strip()
    return unescaped(html.unescape(cell.removeprefix("<code>").removesuffix("</code>").strip("`")))


READ: dict[str, Callable[[str], Iterable[str]]] = {
    "csv": lambda text: (unescaped(row["model"]) for row in csv.DictReader(io.StringIO(text))),
    "json": lambda text: (record["model"] for record in json.loads(text)),
    "jsonl": lambda text: (json.loads(line)["model"] for line in text.splitlines()),
    "markdown": lambda text: map(in_markdown, (line for line in text.splitlines() if " | ok | " in line)),
    "table": lambda text: (unescaped(line.split("  ")[1]) for line in text.splitlines() if "  ok  " in line),
}


@pytest.mark.parametrize("kind", READ)
def test_every_format_of_score_gives_the_names_back(models: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / f"scores.{kind}"
    into = ("-o", str(target)) if kind in ("csv", "jsonl") else ()
    text = run(models, "score", *NAMES, "--batch", "8", "-f", kind, *into)
    if into:
        text = target.read_text(encoding="utf-8")
        assert {os.fsencode(name) for name in read_records(target)} == {os.fsencode(name) for name in NAMES}
    assert sorted(READ[kind](text)) == sorted(NAMES)
    for line in text.split("\n"):
        assert_one_printable_line(line)


def test_every_report_of_check_gives_the_names_back(models: Path, tmp_path: Path) -> None:
    kinds = ("json", "junit", "sarif", "markdown", "text", "github")
    reports = [arg for kind in kinds for arg in ("-r", f"{kind}={tmp_path / kind}")]
    run(models, "check", *NAMES, *reports, "--verbose")
    texts = {kind: (tmp_path / kind).read_text(encoding="utf-8") for kind in kinds}
    assert [one["model"] for one in json.loads(texts["json"])["models"]] == NAMES
    assert [unescaped(case.get("classname", "")) for case in ET.fromstring(texts["junit"]).iter("testcase")] == NAMES
    artifacts = json.loads(texts["sarif"])["runs"][0]["artifacts"]
    assert [os.fsdecode(unquote_to_bytes(one["location"]["uri"])) for one in artifacts] == NAMES
    shown = [line.partition(": nothing found")[0] for line in texts["text"].splitlines()[:-1]]
    assert [unescaped(name) for name in shown] == NAMES
    rows = texts["markdown"].splitlines()[6:]
    assert [in_markdown(row, 0) for row in rows[: len(NAMES)]] == NAMES


def test_a_baseline_finds_models_of_any_name_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models)
    path = tmp_path / "base.json"
    assert command("baseline", "write", *NAMES, "-b", str(path)).code == 0
    assert len(read_baseline(path).models) == len(NAMES)
    assert command("baseline", "diff", *NAMES, "-b", str(path)).out == ""
    assert command("baseline", "write", NAMES[0], "-b", str(path), "--prune").code == 0
    assert len(read_baseline(path).models) == len(NAMES)


def test_a_list_on_standard_input_names_files_by_their_bytes(models: Path) -> None:
    named = [name for name in NAMES if "\n" not in name and "\r" not in name]
    program = [sys.executable, "-m", "epsinas_onnx", "score", "-", "--batch", "8", "-f", "json"]
    lines = b"".join(os.fsencode(name) + b"\n" for name in named)
    done = subprocess.run(program, cwd=models, input=lines, capture_output=True, check=False)
    assert [(row["model"], row["status"]) for row in json.loads(done.stdout)] == [(name, "ok") for name in named]
