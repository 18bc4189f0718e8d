"""The command line: what is scored, in which form it is written, and how it ends."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
import pytest

import epsinas_onnx
from epsinas_onnx.cli.main import app
from epsinas_onnx.report.records import CSV_FIELDS
from tests.builders import PERCEPTRON, Done, build, command, external, new_process, perceptron, save
from tests.report.pages import assert_closed

Array = npt.NDArray[Any]

BATCH = ("--batch", "8")
ZERO = np.zeros([], np.float32)
NORMALISED = """(float[N,3] x) => (float[N,2] y) {
    h = MatMul(x, W)  n = BatchNormalization(h, S, B, M, D)  r = Tanh(n)  y = MatMul(r, V)
}"""
SEQUENCE = """(float[N,T,3] x) => (float[N,2] y) {
    h = MatMul(x, W)  r = Tanh(h)  p = ReduceMean <keepdims = 0> (r, one)  y = MatMul(p, V)
}"""
CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|skip_connect~0|none~1|avg_pool_3x3~2|"
TINY = ("--size", "channels=2", "--size", "cells=1")


def normalised() -> onnx.ModelProto:
    return build(
        NORMALISED, W=(3, 4), S=(4,), B=(4,), V=(4, 2),
        M=np.asarray([0.5, -0.5, 1, 0], np.float32), D=np.asarray([4, 9, 2, 3], np.float32),
    )  # fmt: skip


def sequence() -> onnx.ModelProto:
    return build(SEQUENCE, W=(3, 4), V=(4, 2), one=np.asarray([1]))


def cut_off() -> onnx.ModelProto:
    """Build a model that is validly unscored: nothing of its input reaches the output."""
    return build("(float[N,3] x) => (float[N,2] y) { z = Mul(x, zero)  y = MatMul(z, W) }", zero=ZERO, W=(3, 2))


def records(*args: str, stdin: str = "", code: int = 0) -> list[dict[str, Any]]:
    """Score with small batches and return the JSON records."""
    done = command("score", *args, *(() if "--batch" in args else BATCH), "--format", "json", stdin=stdin)
    assert done.code == code, done.err
    found: list[dict[str, Any]] = json.loads(done.out)
    return found


def models_of(found: list[dict[str, Any]]) -> list[str]:
    return [record["model"] for record in found]


def score_of(*args: str) -> float:
    (record,) = records(*args)
    assert record["status"] == "ok", record["reason"]
    return float(record["score"])


def table_rows(text: str) -> list[list[str]]:
    """Return the words of each line of a printed table, between its titles and its last line."""
    lines = text.splitlines()
    assert lines[0].split() == ["#", "model", "score", "status", "order", "parameters", "seconds"]
    return [line.split() for line in lines[1:-1]]


@pytest.fixture
def perceptron_file(tmp_path: Path) -> str:
    return save(perceptron(), tmp_path / "perceptron.onnx")


@pytest.fixture
def three(tmp_path: Path) -> list[str]:
    """Write three models that score differently, and return their paths from the best to the worst."""
    folder = tmp_path / "three"
    paths = [save(perceptron(kind), folder / f"{kind}.onnx") for kind in ("Elu", "Gelu", "Tanh")]
    scores = {path: epsinas_onnx.score(path, batch=8).score or 0.0 for path in paths}
    assert len({f"{score:.6f}" for score in scores.values()}) == 3
    return sorted(paths, key=lambda path: -scores[path])


# What is scored.


def test_files_are_scored_in_the_order_in_which_they_are_named(three: list[str]) -> None:
    found = records(*reversed(three))
    assert models_of(found) == list(reversed(three))
    for record in found:
        assert record["score"] == epsinas_onnx.score(record["model"], batch=8).score


def test_a_folder_is_searched_through_for_onnx_files_alone(tmp_path: Path) -> None:
    wanted = [save(perceptron(), tmp_path / name) for name in ("a.onnx", "b/c/d.onnx", "b/e.onnx")]
    (tmp_path / "b" / "notes.txt").write_text("no model")
    (tmp_path / "b" / "folder.onnx").mkdir()
    assert models_of(records(str(tmp_path))) == wanted


@pytest.mark.parametrize(
    ("pattern", "wanted"), [("*.onnx", ["a.onnx"]), ("**/*.onnx", ["a.onnx", "b/c.onnx"]), ("b/[a-c].*", ["b/c.onnx"])]
)
def test_a_glob_that_the_shell_left_alone_is_expanded(tmp_path: Path, pattern: str, wanted: list[str]) -> None:
    for name in ("a.onnx", "b/c.onnx"):
        save(perceptron(), tmp_path / name)
    assert models_of(records(str(tmp_path / pattern))) == [str(tmp_path / name) for name in wanted]


def test_a_file_whose_name_looks_like_a_glob_is_that_file(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "net[1].onnx")
    save(perceptron(), tmp_path / "net1.onnx")
    assert models_of(records(path)) == [path]


def test_a_dash_reads_a_list_of_files_from_standard_input(three: list[str]) -> None:
    assert models_of(records("-", stdin=f"{three[2]}\n\n  {three[0]}  \n")) == [three[2], three[0]]


def test_a_file_that_is_named_twice_is_scored_once(three: list[str]) -> None:
    assert models_of(records(three[1], "-", *three, stdin=three[1])) == [three[1], three[0], three[2]]


@pytest.mark.parametrize(
    ("args", "stdin", "words"),
    [
        (("empty",), "", "holds no .onnx file"),
        (("empty/*.onnx",), "", "no file matches"),
        (("-",), "\n \n", "no files were named"),
    ],
)
def test_nothing_to_score_is_a_wrong_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...], stdin: str, words: str
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    done = command("score", *args, stdin=stdin)
    assert (done.code, done.out) == (2, "")
    assert words in done.err


# How results are written.


def written(three: list[str], tmp_path: Path) -> list[str]:
    """Return paths in an order that is not the ranking: one fails, one is validly unscored."""
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    still = save(cut_off(), tmp_path / "still.onnx")
    return [str(broken), three[2], still, three[0], three[1]]


def test_the_table_ranks_the_scored_then_lists_the_unscored_then_the_failed(
    three: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # short names, so that no cell is folded but the last
    paths = [str(Path(path).relative_to(tmp_path)) for path in written(three, tmp_path)]
    done = command("score", *paths, *BATCH)
    assert done.code == 3
    assert done.out.splitlines()[-1] == "3 of 5 scored (1 error, 1 constant)"
    rows = table_rows(done.out)
    for rank, path in enumerate(three):
        wanted = epsinas_onnx.score(path, batch=8)
        name = str(Path(path).relative_to(tmp_path))
        order, parameters = f"{wanted.order:g}", str(wanted.parameters)
        assert rows[rank][:6] == [str(rank + 1), name, f"{wanted.score:.6f}", "ok", order, parameters]
    rest = [row for row in rows[3:] if row[0].endswith(".onnx")]
    assert [row[:2] for row in rest] == [["still.onnx", "constant"], ["broken.onnx", "error"]]
    why = " ".join(word for row in rows[3:] for word in row)
    assert "does not depend on the input" in why
    assert "is not an ONNX file" in why


@pytest.mark.parametrize("name", ["net[red].onnx", "net[/b].onnx", "net[bold]\\[x].onnx"])
def test_a_table_shows_names_with_brackets_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    save(perceptron(), tmp_path / name)
    done = command("score", name, *BATCH)
    assert done.code == 0, done.err
    assert name in done.out


def test_json_is_a_list_of_full_records_in_the_order_given(three: list[str], tmp_path: Path) -> None:
    paths = written(three, tmp_path)
    done = command("score", *paths, *BATCH, "--format", "json")
    found = json.loads(done.out)
    assert models_of(found) == paths
    assert [record["status"] for record in found] == ["error", "ok", "constant", "ok", "ok"]
    wanted = epsinas_onnx.score(paths[1], batch=8).to_dict()
    assert {**found[1], "seconds": None} == {**wanted, "seconds": None}
    assert all(value >= 0 for value in found[1]["seconds"].values())
    assert found[0]["score"] is None
    assert paths[0] in found[0]["reason"]


def test_jsonl_is_one_record_a_line(three: list[str], tmp_path: Path) -> None:
    paths = written(three, tmp_path)
    done = command("score", *paths, *BATCH, "--format", "jsonl", "--jobs", "1")
    found = [json.loads(line) for line in done.out.splitlines()]
    assert models_of(found) == paths
    assert found[3]["score"] == epsinas_onnx.score(paths[3], batch=8).score


def test_csv_has_a_header_and_all_fields(three: list[str], tmp_path: Path) -> None:
    paths = written(three, tmp_path)
    done = command("score", *paths, *BATCH, "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(done.out), strict=True))
    assert tuple(rows[0]) == CSV_FIELDS
    assert [row["model"] for row in rows] == paths
    assert float(rows[1]["score"]) == epsinas_onnx.score(paths[1], batch=8).score
    assert (rows[0]["score"], rows[0]["status"]) == ("", "error")
    assert rows[0]["reason"].startswith(paths[0])
    assert (rows[1]["weights"], rows[1]["batch"], rows[1]["output"]) == ("1e-07 1.0", "8", "y")
    assert float(rows[1]["seconds"]) > 0


def test_markdown_is_a_ranked_table_of_nine_columns(three: list[str], tmp_path: Path) -> None:
    done = command("score", *written(three, tmp_path), *BATCH, "--format", "markdown")
    lines = done.out.splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["#", "model", "score", "status", "order", "float32", "parameters", "seconds", "why"]
    assert [len(row) for row in rows] == [9] * 7
    assert [row[1] for row in rows[2:5]] == [f"`{path}`" for path in three]
    assert [row[0] for row in rows[2:]] == ["1", "2", "3", "", ""]
    assert [row[3] for row in rows[2:]] == ["ok", "ok", "ok", "constant", "error"]
    assert float(rows[2][2]) == pytest.approx(epsinas_onnx.score(three[0], batch=8).score, abs=1e-6)
    assert lines[-1] == "3 of 5 scored (1 error, 1 constant)"


def test_markdown_escapes_what_would_end_a_cell(tmp_path: Path) -> None:
    path = save(perceptron(), tmp_path / "a|b.onnx")
    assert "a\\|b.onnx" in command("score", path, *BATCH, "--format", "markdown").out


def as_json(text: str) -> list[str]:
    return models_of(json.loads(text))


def as_lines(text: str) -> list[str]:
    return [json.loads(line)["model"] for line in text.splitlines()]


def as_csv(text: str) -> list[str]:
    return [row["model"] for row in csv.DictReader(io.StringIO(text))]


def as_markdown(text: str) -> list[str]:
    return [line.split("`")[1] for line in text.splitlines() if "`" in line]


def as_table(text: str) -> list[str]:
    return [row[1] for row in table_rows(text)]


def as_page(text: str) -> list[str]:
    return list(assert_closed(text).data["names"])


@pytest.mark.parametrize(
    ("ending", "read"),
    [("json", as_json), ("html", as_page), ("htm", as_page), ("jsonl", as_lines), ("csv", as_csv), ("md", as_markdown),
     ("txt", as_table), ("out", as_table), ("JSON", as_json)],
)  # fmt: skip
def test_the_ending_of_the_output_file_chooses_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str, read: Callable[[str], list[str]]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(perceptron(), tmp_path / "a.onnx")
    done = command("score", "a.onnx", *BATCH, "--output", f"results.{ending}")
    assert (done.code, done.out) == (0, "")
    assert done.err == f"1 of 1 scored, written to results.{ending}\n"
    assert read((tmp_path / f"results.{ending}").read_text()) == ["a.onnx"]


def test_a_format_that_is_asked_for_wins_over_the_ending(perceptron_file: str, tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    assert command("score", perceptron_file, *BATCH, "--output", str(target), "--format", "csv").code == 0
    assert as_csv(target.read_text()) == [perceptron_file]


def test_an_output_file_that_cannot_be_written_is_a_wrong_command(perceptron_file: str, tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    target = tmp_path / "no folder" / "results.json"
    done = command("score", perceptron_file, *BATCH, "--output", str(target))
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert str(target) in done.err


def test_into_pipes_goes_plain_text_and_no_bar(three: list[str], tmp_path: Path) -> None:
    done = new_process("score", *written(three, tmp_path), *BATCH)
    assert done.code == 3
    assert "\x1b" not in done.out
    assert done.err == ""
    assert done.out.endswith("3 of 5 scored (1 error, 1 constant)\n")


def on_a_terminal(*args: str) -> str:
    """Return what the program writes where both its outputs are a terminal."""
    import pty  # Windows has none

    ours, theirs = pty.openpty()
    env = {**os.environ, "TERM": "xterm", "COLUMNS": "300"}
    env.pop("NO_COLOR", None)
    with subprocess.Popen([sys.executable, "-m", "epsinas_onnx", *args], stdout=theirs, stderr=theirs, env=env):
        os.close(theirs)
        chunks = []
        with open(ours, "rb", buffering=0) as terminal:  # noqa: PTH123 (a file descriptor)
            try:
                while chunk := terminal.read(4096):
                    chunks.append(chunk)
            except OSError:  # how Linux says that the other side is closed
                pass
    return b"".join(chunks).decode()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudoterminals")
def test_on_a_terminal_there_are_colours(three: list[str]) -> None:
    assert "\x1b[32mok" in on_a_terminal("score", *three, *BATCH)


def test_a_file_holds_no_colours_even_where_they_are_forced(perceptron_file: str, tmp_path: Path) -> None:
    target = tmp_path / "results.txt"
    assert new_process("score", perceptron_file, *BATCH, "--output", str(target), FORCE_COLOR="1").code == 0
    text = target.read_text()
    assert "1 of 1 scored" in text
    assert "\x1b" not in text


# How it ends.


def test_the_exit_code_is_0_where_all_is_scored_or_validly_unscored(perceptron_file: str, tmp_path: Path) -> None:
    still = save(cut_off(), tmp_path / "still.onnx")
    assert [record["status"] for record in records(perceptron_file, still, code=0)] == ["ok", "constant"]


def test_the_exit_code_is_3_where_a_file_fails_and_the_others_are_scored(three: list[str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    found = records(three[0], str(broken), *three[1:], code=3)
    assert [record["status"] for record in found] == ["ok", "error", "ok", "ok"]
    assert [found[i]["score"] for i in (0, 2, 3)] == [epsinas_onnx.score(path, batch=8).score for path in three]


@pytest.mark.parametrize(
    "args",
    [
        ("--no-such-option",),
        ("--format", "xml"),
        ("--jobs", "0"),
        ("--provider", "tpu"),
        ("--norm-stats", "none"),
        ("--weights", "1"),
        ("--weights", "1,2,3"),
        ("--weights", "one,two"),
        ("--shape", "x"),
        ("--shape", "x=1,b"),
        ("--shape", "x=0,3"),
        ("--dim", "N=1,2"),
        ("--role", "first"),
        ("--role", "=weight"),
        ("--input", "no such file.npy"),
        ("--dtype", "float8"),
    ],
)
def test_the_exit_code_is_2_where_the_command_is_wrong(perceptron_file: str, args: tuple[str, ...]) -> None:
    done = command("score", perceptron_file, *args)
    assert (done.code, done.out) == (2, "")
    assert "Error" in done.err
    assert "Traceback" not in done.err


def test_a_new_process_ends_with_the_same_exit_codes(perceptron_file: str) -> None:
    """The tests of pipes and colours look at 0 and 3."""
    assert new_process("score", perceptron_file, "--batch", "1").code == 2


def test_no_arguments_show_the_help() -> None:
    done = command()
    text = done.out + done.err
    assert "Usage" in text
    assert all(name in text for name in ("score", "inspect", "rewrite", "export", "Exit codes"))
    assert done.code in (0, 2)  # which one is Click's choice


def test_version_names_the_package_and_its_runtime() -> None:
    from importlib.metadata import version

    done = command("--version")
    assert (done.code, done.err) == (0, "")
    lines = dict(line.split() for line in done.out.splitlines())
    assert lines["epsinas-onnx"] == version("epsinas-onnx")
    assert lines["onnxruntime"] == ort.__version__


def test_every_option_of_score_has_a_word_of_help() -> None:
    from typer.main import get_command

    options = vars(vars(get_command(app))["commands"]["score"])["params"]
    assert len(options) > 10
    assert [option.name for option in options if not option.help] == []


# What the options do.


def test_shape_and_dim_set_free_dimensions_and_the_batch_axis_follows_batch(tmp_path: Path) -> None:
    path = save(sequence(), tmp_path / "sequence.onnx")
    (record,) = records(path, "--shape", "x=1,5,3")
    assert record["batch"] == 8
    assert record["score"] == score_of(path, "--dim", "T=5")
    assert record["score"] == epsinas_onnx.score(path, batch=8, shapes={"T": 5}).score
    assert record["score"] != score_of(path, "--dim", "T=9")


def test_output_name_chooses_what_is_compared(perceptron_file: str) -> None:
    (record,) = records(perceptron_file, "--output-name", "r")
    assert record["output"] == ["r"]
    assert record["score"] == epsinas_onnx.score(perceptron_file, batch=8, outputs="r").score
    (both,) = records(perceptron_file, "--output-name", "r", "--output-name", "y")
    assert both["output"] == ["r", "y"]
    # y is r times a number, which changes no score; both together are another thing.
    assert record["score"] == pytest.approx(score_of(perceptron_file), rel=1e-12)
    assert both["score"] != pytest.approx(record["score"], rel=1e-2)


def test_role_overrides_what_was_decided(perceptron_file: str) -> None:
    (record,) = records(perceptron_file, "--role", "first:1=constant")
    assert record["parameters"] == 4 * 2 + 2
    assert record["score"] == epsinas_onnx.score(perceptron_file, batch=8, roles={"first:1": "constant"}).score
    assert record["score"] != score_of(perceptron_file)


def test_a_role_that_matches_nothing_is_a_warning(perceptron_file: str) -> None:
    (record,) = records(perceptron_file, "--role", "nothing*=constant")
    assert record["score"] == score_of(perceptron_file)
    assert any("'nothing*' matches nothing" in warning for warning in record["warnings"])


def test_norm_stats_chooses_the_statistics(tmp_path: Path) -> None:
    path = save(normalised(), tmp_path / "normalised.onnx")
    weights = ("--weights", "0.1,1")
    found = {kind: records(path, *weights, "--norm-stats", kind)[0] for kind in ("batch", "reset", "stored")}
    assert {kind: record["norm_stats"] for kind, record in found.items()} == {kind: kind for kind in found}
    assert records(path, *weights)[0]["raw_score"] == found["batch"]["raw_score"]
    assert len({record["raw_score"] for record in found.values()}) == 3


def test_weights_are_the_two_constants(perceptron_file: str) -> None:
    (record,) = records(perceptron_file, "--weights", "0.1,-2")
    assert record["weights"] == [0.1, -2.0]
    assert record["score"] == epsinas_onnx.score(perceptron_file, batch=8, weights=(0.1, -2)).score
    assert record["score"] != score_of(perceptron_file)


def test_the_same_seed_gives_the_same_score_and_another_seed_another(perceptron_file: str) -> None:
    assert score_of(perceptron_file, "--seed", "3") == score_of(perceptron_file, "--seed", "3")
    assert score_of(perceptron_file, "--seed", "3") != score_of(perceptron_file, "--seed", "4")
    assert score_of(perceptron_file, "--seed", "0") == score_of(perceptron_file)


def test_input_takes_a_kind_a_file_and_a_file_for_each_input(perceptron_file: str, tmp_path: Path) -> None:
    array = np.random.default_rng(1).standard_normal((6, 3)).astype(np.float32)
    np.save(tmp_path / "given.npy", array)
    wanted = epsinas_onnx.score(perceptron_file, inputs=array).score
    assert wanted is not None
    for text in (str(tmp_path / "given.npy"), f"x={tmp_path / 'given.npy'}"):
        (record,) = records(perceptron_file, "--input", text)
        assert (record["score"], record["batch"]) == (wanted, 6)
    (uniform,) = records(perceptron_file, "--input", "uniform")
    assert uniform["input"] == "uniform"
    assert uniform["score"] == epsinas_onnx.score(perceptron_file, batch=8, inputs="uniform").score


@pytest.mark.slow
def test_two_jobs_give_the_rows_of_one_job(three: list[str], tmp_path: Path) -> None:
    paths = written(three, tmp_path)
    done = new_process("score", *paths, *BATCH, "--jobs", "2", "--format", "json")
    assert done.code == 3, done.err
    assert done.err == ""
    alone, together = records(*paths, code=3), json.loads(done.out)
    for record in (*alone, *together):
        del record["seconds"]
    assert together == alone


# inspect


def test_inspect_lists_every_use_with_its_role_and_rule(perceptron_file: str) -> None:
    done = command("inspect", perceptron_file, *BATCH)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{perceptron_file}: ")
    rows = {line.split()[0]: line.split()[1:] for line in done.out.splitlines() if line.strip()}
    assert rows["first:1"][:4] == ["MatMul", "W", "3x4", "weight"]
    assert rows["last:1"][:4] == ["Gemm", "V", "4x2", "weight"]
    assert rows["last:2"][:4] == ["Gemm", "B", "2", "bias"]
    assert rows["x"] == ["FLOAT", "[N,", "3]", "[8,", "3]", "0", "normal"]
    assert "22 parameters" in done.out
    assert "roles: 2 weight, 1 bias" in done.out


def test_inspect_as_json_is_the_whole_inspection(tmp_path: Path) -> None:
    path = save(sequence(), tmp_path / "sequence.onnx")
    args = ("--dim", "T=5", "--role", "W=constant", *BATCH)
    found = json.loads(command("inspect", path, *args, "--format", "json").out)
    wanted = epsinas_onnx.inspect(path, shapes={"T": 5}, roles={"W": "constant"}, batch=8)
    assert found == json.loads(json.dumps(wanted.to_dict()))
    assert found["inputs"][0]["shape"] == [8, 5, 3]
    assert {use["tensor"]: use["role"] for use in found["uses"]} == {"W": "constant", "V": "weight"}
    assert found["uses"][0]["rule"] == "given: W=constant"


def test_inspect_says_what_is_odd(tmp_path: Path) -> None:
    path = save(build("(float[1,3] x) => (float[1,3] y) { y = Tanh(x) }"), tmp_path / "odd.onnx")
    text = command("inspect", path, "--role", "first=weight").out
    assert "warning: the file fixes the batch to 1" in text
    assert "warning: no weights were found" in text
    assert "warning: the role pattern 'first' matches nothing" in text


@pytest.mark.parametrize(("args", "code"), [((), 3), (("--format", "csv"), 2), (("--shape", "x"), 2)])
def test_inspect_fails_in_one_sentence(tmp_path: Path, args: tuple[str, ...], code: int) -> None:
    done = command("inspect", str(tmp_path / "missing.onnx"), *args)
    assert (done.code, done.out) == (code, "")
    assert "Error" in done.err
    assert "Traceback" not in done.err


# rewrite


def run_file(path: Path, feeds: dict[str, Array]) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return np.array(session.run(None, feeds)[0])


def rewritten(path: str, target: Path, weight: str, *args: str) -> Done:
    done = command("rewrite", path, "--weight", weight, "--output", str(target), *args)
    assert (done.code, done.out) == (0, ""), done.err
    return done


def test_a_rewritten_model_is_valid_and_small(tmp_path: Path) -> None:
    path = save(perceptron(width=10_000), tmp_path / "wide.onnx")
    done = rewritten(path, tmp_path / "out.onnx", "0.5")
    proto = onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(proto, full_check=True)
    size = (tmp_path / "out.onnx").stat().st_size
    assert size < 2_000 < 200_000 < Path(path).stat().st_size
    assert f"{size:,} bytes" in done.err
    assert [value.name for value in proto.graph.input] == ["x"]
    assert [value.name for value in proto.graph.output] == ["y"]


@pytest.mark.parametrize(
    ("model", "norm_stats"), [(perceptron, "batch"), (normalised, "batch"), (normalised, "stored")]
)
def test_two_rewritten_models_give_the_score(
    tmp_path: Path, model: Callable[[], onnx.ModelProto], norm_stats: str
) -> None:
    path = save(model(), tmp_path / "model.onnx")
    feed = np.random.default_rng(2).standard_normal((8, 3)).astype(np.float32)
    np.save(tmp_path / "feed.npy", feed)
    args = ("--norm-stats", norm_stats)
    outputs = []
    for weight in ("0.1", "2"):
        rewritten(path, tmp_path / f"at{weight}.onnx", weight, *args)
        outputs.append(run_file(tmp_path / f"at{weight}.onnx", {"x": feed}))
    score = score_of(path, "--weights", "0.1,2", "--input", str(tmp_path / "feed.npy"), *args)
    assert epsinas_onnx.normalised_dispersion(*outputs) == pytest.approx(score, rel=1e-5)


def test_a_rewritten_model_is_the_network_with_all_weights_at_the_constant(
    perceptron_file: str, tmp_path: Path
) -> None:
    rewritten(perceptron_file, tmp_path / "out.onnx", "0.25")
    for batch in (2, 5):
        feed = np.random.default_rng(batch).standard_normal((batch, 3)).astype(np.float32)
        hidden = np.tanh(feed.astype(np.float64) @ np.full((3, 4), 0.25))
        np.testing.assert_allclose(
            run_file(tmp_path / "out.onnx", {"x": feed}), hidden @ np.full((4, 2), 0.25), rtol=1e-5, atol=1e-6
        )


def test_rewrite_keeps_what_a_role_keeps(perceptron_file: str, tmp_path: Path) -> None:
    rewritten(perceptron_file, tmp_path / "out.onnx", "1", "--role", "V=constant")
    stored = {
        tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(perceptron_file).graph.initializer
    }
    feed = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    wanted = np.tanh(feed @ np.ones((3, 4), np.float32)) @ stored["V"]
    np.testing.assert_allclose(run_file(tmp_path / "out.onnx", {"x": feed}), wanted, rtol=1e-4, atol=1e-5)


def test_a_kept_constant_from_a_data_file_is_stored_in_the_rewritten_model(tmp_path: Path) -> None:
    graph = PERCEPTRON.replace("MatMul(x, W)", "MatMul(k, W)").replace("{", "{ k = Mul(x, K)")
    scale = np.asarray([1, 2, 3], np.float32)
    proto = external(build(graph, W=(3, 4), V=(4, 2), B=(2,)), "scale.bin", K=(3,))
    path = save(proto, tmp_path / "model" / "model.onnx")
    (tmp_path / "model" / "scale.bin").write_bytes(scale.tobytes())
    rewritten(path, tmp_path / "out.onnx", "0.25")
    feed = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    wanted = np.tanh((feed * scale) @ np.full((3, 4), 0.25)) @ np.full((4, 2), 0.25)
    np.testing.assert_allclose(run_file(tmp_path / "out.onnx", {"x": feed}), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("--weight", "nan"), 2),
        (("--weight", "inf"), 2),
        (("--weight", "1e60"), 2),
        (("--weight", "one"), 2),
        (("--weight", "1", "--dtype", "float8"), 2),
        (("--weight", "1", "--role", "W=wieght"), 2),
        (("--weight", "1", "--shape", "z=1,3"), 3),
    ],
)
def test_rewrite_refuses_in_one_sentence_and_writes_nothing(
    perceptron_file: str, tmp_path: Path, args: tuple[str, ...], code: int
) -> None:
    done = command("rewrite", perceptron_file, *args, "--output", str(tmp_path / "out.onnx"))
    assert (done.code, done.out) == (code, "")
    assert "Error" in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "out.onnx").exists()


def test_rewrite_says_where_it_cannot_write(perceptron_file: str, tmp_path: Path) -> None:
    (tmp_path / "no folder").write_text("")
    target = str(tmp_path / "no folder" / "out.onnx")
    done = command("rewrite", perceptron_file, "--weight", "1", "--output", target)
    assert done.code == 2
    assert done.err.count("\n") == 1
    assert target in done.err


# export


def exported(folder: Path, *args: str) -> list[str]:
    done = command("export", "nasbench201", *args, *TINY, "--output", str(folder))
    assert (done.code, done.out) == (0, ""), done.err
    files = sorted(path.name for path in folder.iterdir())
    assert f"{len(files)} file{'s' if len(files) > 1 else ''} in {folder}" in done.err
    return files


def test_export_writes_the_cell_of_a_string_and_it_scores(tmp_path: Path) -> None:
    assert exported(tmp_path / "a", CELL) == ["nb201-c3-n-s-s-n-p.onnx"]
    path = tmp_path / "a" / "nb201-c3-n-s-s-n-p.onnx"
    onnx.checker.check_model(path, full_check=True)
    assert path.stat().st_size < 20_000
    (record,) = records(str(path), "--batch", "4")
    assert record["status"] == "ok", record["reason"]


def test_export_takes_an_index_of_the_benchmark(tmp_path: Path) -> None:
    from epsinas_exporters.nasbench201 import architectures

    by_string = exported(tmp_path / "string", architectures()[42])
    assert exported(tmp_path / "index", "42") == by_string
    first, second = ((tmp_path / kind / by_string[0]).read_bytes() for kind in ("string", "index"))
    assert first == second


def test_export_draws_the_same_architectures_for_the_same_seed(tmp_path: Path) -> None:
    drawn = exported(tmp_path / "a", "--random", "3", "--seed", "5")
    assert len(drawn) == 3
    assert exported(tmp_path / "b", "--random", "3", "--seed", "5") == drawn
    assert exported(tmp_path / "c", "--random", "3", "--seed", "6") != drawn


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        (CELL.replace("skip_connect~1", "conv_7x7~1"), ("edge 1->2", "'conv_7x7'")),
        (CELL.replace("skip_connect~1", "skip_connect~0"), ("edge 1->2", "must come from node 1")),
        (CELL.replace("avg_pool_3x3~2", "avg_pool_3x3"), ("edge 2->3", "OPERATION~2")),
        (CELL.rpartition("+")[0], ("2 nodes",)),
        ("15625", ("15625", "15624")),
    ],
)
def test_export_refuses_a_bad_architecture_and_names_the_edge(
    tmp_path: Path, arch: str, words: tuple[str, ...]
) -> None:
    done = command("export", "nasbench201", CELL, arch, *TINY, "--output", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    assert all(word in done.err for word in words), done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "args",
    [
        (),
        ("--random", "15626"),
        ("--random", "-1"),
        ("--size", "channels=0", CELL),
        ("--size", "chanels=8", CELL),
        ("--size", "channels", CELL),
    ],
)
def test_export_refuses_what_it_cannot_write(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = command("export", "nasbench201", *args, "--output", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("args", [("--all",), ("123456789012345678",)])
def test_export_does_not_begin_a_list_that_never_ends(tmp_path: Path, args: tuple[str, ...]) -> None:
    done = command("export", "darts", *args, "--output", str(tmp_path / "out"))
    assert (done.code, done.out) == (2, "")
    assert "too many to list" in done.err


def test_export_names_the_sizes_that_a_space_has(tmp_path: Path) -> None:
    done = command("export", "nasbenchnlp", "--random", "1", "--size", "embedding=8", "--output", str(tmp_path))
    assert done.code == 2
    assert "layers, steps, width, hidden, tokens" in done.err


def test_an_input_that_cannot_be_used_prints_no_empty_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    graph = "(float[N,3,8,8] x) => (float[N,1,8,8] y) { y = Conv(x, W) }"
    path = save(build(graph, W=(1, 3, 1, 1)), tmp_path / "a.onnx")
    done = command("score", str(path), "--input", str(tmp_path / "images"))
    assert (done.code, done.out) == (2, "")
    assert "holds no images" in done.err


def test_a_mistake_of_our_own_is_one_line_too(perceptron_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with mock.patch("epsinas_onnx.report.inspection.print_inspection", side_effect=RuntimeError("two\nlines")):
        done = command("inspect", perceptron_file)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("Error: unexpected RuntimeError: two lines; please report it")
        monkeypatch.setenv("EPSINAS_TRACEBACK", "1")
        with pytest.raises(RuntimeError, match="two"):
            command("inspect", perceptron_file)
