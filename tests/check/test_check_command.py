"""`epsinas-onnx check` as a user meets it: exit codes, reports, words that are wrong, many models."""

from __future__ import annotations

import gc
import json
import os
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from epsinas_onnx.check.rules import RULES
from tests.builders import build, command, new_process, perceptron, save
from tests.check.checking import ABORTS, checked

FIXED = "(float[1,3] x) => (float[1,4] y) { [first] h = MatMul(x, W) y = Tanh(h) }"
QUICK = "score = { batch = 8 }\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a good model, one with a fixed batch, and a configuration, and go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epsinas-onnx.toml").write_text(QUICK)
    save(perceptron(), tmp_path / "models" / "good.onnx")
    save(build(FIXED, W=(3, 4)), tmp_path / "models" / "fixed.onnx")
    return tmp_path


def test_warnings_pass_until_they_are_told_to_fail(folder: Path) -> None:
    done = command("check", "models")
    assert (done.code, done.err) == (0, "")
    assert "models/fixed.onnx" in done.out
    assert "fixed-batch" in done.out
    assert "2 models checked: 1 warning" in done.out
    assert command("check", "models", "--fail-on", "warning").code == 1
    (folder / "epsinas-onnx.toml").write_text(f'{QUICK}rules.fixed-batch = "error"\n')
    assert command("check", "models").code == 1
    assert command("check", "models/good.onnx").code == 0


def test_a_broken_file_among_others_is_one_finding(folder: Path) -> None:
    (folder / "models" / "broken.onnx").write_bytes(b"nothing")
    done = command("check", "models", "--format", "json")
    record = json.loads(done.out)
    assert done.code == 1
    by_name = {Path(one["model"]).name: [f["rule"] for f in one["findings"]] for one in record["models"]}
    assert by_name == {"broken.onnx": ["unreadable"], "fixed.onnx": ["fixed-batch"], "good.onnx": []}


@pytest.mark.slow
def test_a_file_that_kills_its_process_costs_one_finding(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "sitecustomize.py").write_text(ABORTS.format("fixed.onnx"))
    done = new_process("check", "models", "--format", "json", PYTHONPATH=_path(folder))
    found = {Path(one["model"]).name: one["findings"] for one in json.loads(done.out)["models"]}
    assert done.code == 1
    assert found["good.onnx"] == []
    assert "its worker process died twice (SIGABRT)" in found["fixed.onnx"][0]["message"]


def _path(folder: Path) -> str:
    return os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])


def test_reports_are_written_beside_what_is_printed(folder: Path) -> None:
    done = command(
        "check", "models", "-r", "out/check.sarif", "-r", "out/junit.xml", "-r", "out/check.md", "-r", "json=out/record"
    )  # fmt: skip
    assert done.code == 0
    assert "2 models checked" in done.out
    assert json.loads((folder / "out" / "check.sarif").read_text())["version"] == "2.1.0"
    assert (folder / "out" / "junit.xml").read_text().startswith("<?xml")
    assert "fixed-batch" in (folder / "out" / "check.md").read_text()
    assert json.loads((folder / "out" / "record").read_text())["failed"] is False


def test_only_selected_rules_look(folder: Path) -> None:
    done = command("check", "models", "--select", "opset-range", "--format", "json")
    assert [one["findings"] for one in json.loads(done.out)["models"]] == [[], []]
    assert [one["facts"]["score"] for one in json.loads(done.out)["models"]] == [None, None]


def test_ignored_findings_do_not_fail_and_are_counted(folder: Path) -> None:
    (folder / "epsinas-onnx.toml").write_text(
        f'{QUICK}rules.fixed-batch = "error"\n'
        '[[ignore]]\nrule = "fixed-batch"\npath = "models/fixed.onnx"\nreason = "one at a time"\n'
    )
    done = command("check", "models")
    assert (done.code, "1 ignored" in done.out, "one at a time" in done.out) == (0, True, False)
    assert "one at a time" in command("check", "models", "--verbose").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("check",), "no files were named; give files, folders or globs to check"),
        (("check", "models", "--select", "folded"), "there is no rule 'folded'; the rules are unreadable,"),
        (("check", "models", "--fail-on", "fatal"), "--fail-on takes error, warning, note, not 'fatal'"),
        (("check", "models", "--report", "check.bin"), "--report check.bin: the ending says no format; write"),
        (("check", "models", "--config", "lost.toml"), "the configuration lost.toml cannot be read: No such file"),
        (("check", "models", "--baseline", "lost.json"), "there is no baseline lost.json; make it with"),
        (("check", "--explain", "folded"), "there is no rule 'folded'"),
        (("check", "nowhere/*.onnx"), "no file matches 'nowhere/*.onnx'"),
    ],
)
def test_wrong_words_are_one_sentence(words: tuple[str, ...], message: str, folder: Path) -> None:
    done = command(*words)
    assert (done.code, message in done.err, done.out) == (2, True, ""), done.err
    assert done.err.count("\n") == 1


def test_a_report_that_can_never_be_written_is_said_before_anything_is_checked(folder: Path) -> None:
    (folder / "taken").write_text("")
    done = command("check", "models", "--report", "taken/check.sarif")
    assert (done.code, done.out) == (2, "")
    assert "cannot write taken/check.sarif" in done.err


def test_rules_are_listed_and_explained() -> None:
    listed = command("check", "--rules").out
    assert [line.split()[0] for line in listed.splitlines()] == list(RULES)
    explained = command("check", "--explain", "size-budget").out
    assert RULES["size-budget"].why in explained
    assert "Option max: " in explained


def test_many_models_keep_their_order_and_the_rate_is_printed(folder: Path) -> None:
    for number in range(30):
        shutil.copy(folder / "models" / ("good.onnx" if number % 3 else "fixed.onnx"), folder / f"{number:02}.onnx")
    (folder / "07.onnx").write_bytes(b"")
    done = command("check", *sorted(path.name for path in folder.glob("*.onnx")), "--format", "json", "-r", "all.txt")
    record = json.loads(done.out)
    assert [one["model"] for one in record["models"]] == [f"{number:02}.onnx" for number in range(30)]
    assert [one["model"] for one in record["models"] if one["findings"] and one["findings"][0]["rule"] == "unreadable"]\
        == ["07.onnx"]  # fmt: skip
    assert "models/s" in (folder / "all.txt").read_text()


def test_a_checked_model_leaves_no_graph_behind(folder: Path) -> None:
    """A check of hundreds of models keeps its memory flat without a search of the whole heap in between."""

    def graphs() -> int:
        return sum(type(one) is ir.Graph for one in gc.get_objects())

    gc.collect()
    before = graphs()
    for _ in range(3):
        assert checked(folder / "models" / "good.onnx", folder).findings == ()
    assert graphs() <= before
