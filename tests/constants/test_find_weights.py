"""`find_weights`, `find-weights` and `--weights auto`: what they choose and print, and what they say to bad input."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from scipy.stats import spearmanr

from epsinas_exporters import spaces
from epsinas_onnx import PairCoverage, UsageError, find_weights, score, score_many
from epsinas_onnx.constants import run
from epsinas_onnx.constants.find import CONSTANTS
from tests.builders import build, command, perceptron, save

MODELS = Path(__file__).parents[2] / "models"
TABLE = Path(__file__).parents[3] / "shared" / "data" / "nasbench201.csv.gz"
LOOP = """(float[N,3] x) => (float[N,2] y) {
    s = Loop(n, c, x) <body = b (int64 i, bool go, float[N,3] a) => (bool on, float[N,3] z) {
        on = Identity(go)  z = Tanh(a)
    }>
    y = MatMul(s, W)
}"""
QUICK = ("--batch", "8", "--constants", "1e-7,1e-3,1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("Tanh", "Sigmoid", "Softplus"):
        save(perceptron(name), tmp_path / "nets" / f"{name.lower()}.onnx")
    return tmp_path / "nets"


@pytest.fixture
def bad(folder: Path) -> Path:
    (folder / "bad.onnx").write_bytes(b"no model")
    return folder


def failed(*args: str) -> str:
    done = command("find-weights", *args)
    assert (done.code, done.out) == (2, "")
    return done.err


def test_float32_and_exact_choose_what_their_coverages_say() -> None:
    """With a 3x3 convolution on the only path, 1e-7 leaves the range of float32; exact arithmetic has none."""
    models = [str(MODELS / f"nb201-{name}.onnx") for name in ("c3-n-n-c1-c3-n", "c3-c3-p-s-c3-s", "p-c1-s-c1-s-s")]
    constants = (1e-7, 1e-3, 0.1, 1.0)
    published = find_weights(models, constants=constants, batch=8, arithmetic="float32")
    exact = find_weights(models, constants=constants, batch=8, arithmetic="exact")
    assert exact.weights == (1e-7, 1.0)
    assert published.weights == (1e-3, 1.0)
    assert (published.of((1e-7, 1.0)).scored, exact.of((1e-7, 1.0)).scored) == (2, 3)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="the tables of ../shared/data are not here")
def test_the_rule_on_nas_bench_201() -> None:
    """By coverage float32 takes 1e-3 and 1, as the author's own counts do; exact arithmetic takes the paper's pair."""
    space = spaces.get("nasbench201")
    networks = [space.network(arch) for arch in space.sample(60, seed=0)]
    constants = (1e-7, 1e-3, 1.0)
    published = find_weights(networks, constants=constants, batch=32, arithmetic="float32", jobs=2)
    assert published.weights == (1e-3, 1.0)
    assert 0.4 < published.of((1e-7, 1.0)).coverage < 0.75
    assert find_weights(networks, constants=constants, batch=32, arithmetic="exact", jobs=2).weights == (1e-7, 1.0)


@pytest.mark.slow
@pytest.mark.skipif(not TABLE.exists(), reason="the tables of ../shared/data are not here")
def test_the_correlation_on_nas_bench_201_takes_the_published_pair(tmp_path: Path) -> None:
    done = command(
        "find-weights", "nasbench201", "--accuracies", str(TABLE), "--column", "cifar10_test", "--sample", "60",
        "--constants", "1e-7,1e-3,1", "--arithmetic", "float32", "--batch", "32", "--jobs", "2", "--format", "json",
    )  # fmt: skip
    found = json.loads(done.out)
    assert found["weights"] == [1e-7, 1.0]
    assert found["pairs"][1]["spearman"] > 0.7


def test_correlations_are_over_what_is_scored_and_known() -> None:
    models = [perceptron(name) for name in ("Tanh", "Sigmoid", "Softplus", "Elu", "Gelu", "HardSwish", "Selu", "Erf")]
    accuracies: list[float | None] = [1.0, 5.0, 2.0, None, 7.0, math.nan, 3.0, 4.0]
    found = find_weights(models, constants=(0.01, 0.3, 2.0), accuracies=accuracies, batch=8)
    assert found.by == "correlation"
    for pair in found.pairs:
        both = [
            (one.score, accuracy)
            for model, accuracy in zip(models, accuracies, strict=True)
            if (one := score(model, weights=pair.weights, batch=8)).score is not None
            and accuracy is not None
            and math.isfinite(accuracy)
        ]
        assert pair.ranked == len(both)
        assert pair.spearman == pytest.approx(spearmanr(*zip(*both, strict=True)).statistic)


def test_a_bad_file_costs_one_row_and_no_coverage(bad: Path) -> None:
    done = command("find-weights", str(bad), *QUICK, "--format", "json")
    found = json.loads(done.out)
    assert done.code == 3
    assert found["networks"] == 3
    assert all(pair["total"] == 3 for pair in found["pairs"])
    ((one, *others),) = [found["failed"]]
    assert not others
    assert one["model"].endswith("bad.onnx")
    assert "bad.onnx: " in one["reason"]


def test_all_formats_hold_the_same_pairs(folder: Path, tmp_path: Path) -> None:
    found = json.loads(command("find-weights", str(folder), *QUICK, "-f", "json").out)
    rows = list(csv.DictReader(io.StringIO(command("find-weights", str(folder), *QUICK, "-f", "csv").out)))
    assert [[float(row["first"]), float(row["second"])] for row in rows] == [one["weights"] for one in found["pairs"]]
    assert [int(row["scored"]) for row in rows] == [one["scored"] for one in found["pairs"]]
    chosen = f"weights {','.join(f'{weight:g}' for weight in found['weights'])}: {found['reason']}"
    assert chosen in command("find-weights", str(folder), *QUICK).out
    written = tmp_path / "pairs.md"
    done = command("find-weights", str(folder), *QUICK, "-o", str(written))
    assert (done.code, done.out) == (0, "")
    assert f"; the pairs are in {written}" in done.err
    table = [line for line in written.read_text().splitlines() if line.startswith("|")]
    assert table[0] == "|  | 0.001 | 1 |"
    assert len(table) == 4


def test_the_table_stands_in_a_narrow_terminal(folder: Path) -> None:
    lines = command("find-weights", str(folder), "--batch", "8").out.splitlines()
    start = lines.index("networks scored with each pair")
    assert all(len(line) <= 80 for line in lines[start : start + 9])
    assert lines[start + 1].split() == ["1e-06", "1e-05", "0.0001", "0.001", "0.01", "0.1", "1"]


@pytest.mark.parametrize("ending", [".png", ".pdf", ".svg"])
def test_heat_maps(folder: Path, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"map{ending}"
    assert command("find-weights", str(folder), *QUICK, "--plot", str(target)).code == 0
    before = target.read_bytes()
    assert before
    command("find-weights", str(folder), *QUICK, "--plot", str(target))
    assert target.read_bytes() == before  # no date, no chance


def test_a_heat_map_shows_every_figure_and_frames_the_choice(folder: Path, tmp_path: Path) -> None:
    from epsinas_onnx.constants import picture

    found = find_weights([str(path) for path in sorted(folder.iterdir())], constants=(0.01, 0.3, 2.0), batch=8)
    (axes,) = picture._figure(found, "nets").axes
    assert [text.get_text() for text in axes.texts] == [f"{pair.coverage:.0%}" for pair in found.pairs]
    (frame,) = axes.patches
    assert found.weights == (0.01, 2.0)
    assert frame.get_xy() == (0.5, -0.5)  # type: ignore[attr-defined]


def test_a_sample_of_a_space_is_the_same_for_the_same_seed() -> None:
    args = ("find-weights", "nasbench201", "--sample", "3", "--batch", "8", "--constants", "1e-3,1", "-f", "json")
    first = json.loads(command(*args, "--seed", "5").out)
    assert first["networks"] == 3
    assert first["input"] == "grey"
    assert first == json.loads(command(*args, "--seed", "5").out)


def test_accuracies_of_files_are_found_by_their_names(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "accuracies.csv"
    table.write_text("model,accuracy\ntanh.onnx,1\nsigmoid.onnx,3\nsoftplus.onnx,2\nother.onnx,9\n")
    save(perceptron("Elu"), folder / "unknown.onnx")
    done = command(
        "find-weights", str(folder), *QUICK, "--accuracies", str(table), "--column", "accuracy", "-f", "json"
    )
    assert "1 file is not in" in done.err
    found = json.loads(done.out)
    assert (found["networks"], found["by"]) == (3, "correlation")


def test_ctrl_c_keeps_what_was_run(folder: Path) -> None:
    results = run.run_constants

    def interrupted(*args: Any, **options: Any) -> Iterator[Any]:
        yield next(iter(results(*args, **options)))
        raise KeyboardInterrupt

    with mock.patch.object(run, "run_constants", interrupted):
        done = command("find-weights", str(folder), *QUICK, "-f", "json")
    assert done.code == 130
    assert json.loads(done.out)["networks"] == 1
    assert "over the 1 networks that were run until then; 2 were not" in done.err


def test_a_limit_ends_one_network(tmp_path: Path) -> None:
    """What takes seconds is not over before the limit is looked at for the first time."""
    folder = tmp_path / "slow"
    for name in ("tanh", "other"):
        graph = build(LOOP, W=(3, 2), n=np.asarray(100_000), c=np.asarray(True))
        save(graph, folder / f"{name}.onnx")
    done = command("find-weights", str(folder), *QUICK, "--timeout", "0.0001", "-f", "json")
    found = json.loads(done.out)
    assert done.code == 3
    assert found["weights"] is None
    table = command("find-weights", str(folder / "tanh.onnx"), *QUICK, "--timeout", "0.0001").out
    assert "networks scored" not in table  # a table of nothing
    assert "not run: " in table
    assert {one["reason"].split(": ")[1].split(" s ")[0] for one in found["failed"]} == {"took longer than 0.0001"}


def test_auto_takes_one_pair_for_the_batch_and_says_it(folder: Path) -> None:
    files = [str(path) for path in sorted(folder.iterdir())]
    found = find_weights(files, batch=8)
    assert found.weights is not None
    done = command("score", str(folder), "--weights", "auto", "--batch", "8", "-f", "json")
    assert f"weights {found.weights[0]:g},{found.weights[1]:g}: {found.reason}" in done.err
    records = json.loads(done.out)
    assert [record["weights"] for record in records] == [list(found.weights)] * 3
    assert [one.score for one in score_many(files, weights="auto", batch=8)] == [one["score"] for one in records]
    assert score(files[0], weights="auto", batch=8).weights == find_weights(files[:1], batch=8).weights


def test_auto_falls_back_to_the_default_pair_where_no_pair_scores_anything(tmp_path: Path) -> None:
    still = save(
        build("(float[N,3] x) => (float[N,3] y) { z = Sub(x, x)  y = MatMul(z, W) }", W=(3, 3)), tmp_path / "still.onnx"
    )
    done = command("score", still, "--weights", "auto", "--batch", "8", "-f", "json")
    assert "weights 1e-07,1, the default: no pair of constants gives any network a score" in done.err
    assert json.loads(done.out)[0]["weights"] == [1e-7, 1.0]
    assert list(score_many([], weights="auto")) == []


def test_bad_input_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    assert "'nasbench2011' is neither a file nor a search space; the spaces are darts, nasbench101" in failed(
        "nasbench2011"
    )
    assert "one constant makes no pair" in failed(str(folder), "--constants", "1")
    assert "two of the constants are equal in float32" in failed(str(folder), "--constants", "1,1.00000000001")
    assert "the constant -1 is not above 0" in failed(str(folder), "--constants", "-1,1")
    assert "beyond float32" in failed(str(folder), "--constants", "1,1e60")
    assert "--constants takes numbers with commas between" in failed(str(folder), "--constants", "a,b")
    assert "name it with --accuracies" in failed(str(folder), "--column", "x")
    assert "a plot is a .png, .pdf or .svg file" in failed(str(folder), "--plot", "a.gif")
    table = tmp_path / "table.csv"
    table.write_text("model,accuracy\nelsewhere.onnx,1\n")
    assert "the columns are model, accuracy" in failed(str(folder), "--accuracies", str(table))
    message = failed(str(folder), "--accuracies", str(table), "--column", "accuracy")
    assert "the column 'model' names none of the files" in message
    with pytest.raises(UsageError, match="there are 1 models and 2 accuracies"):
        find_weights([perceptron()], accuracies=[1.0, 2.0])
    with pytest.raises(UsageError, match="constants are numbers"):
        find_weights([perceptron()], constants="abc")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="or 'auto', not 'best'"):
        score(perceptron(), weights="best")  # type: ignore[arg-type]


def test_an_unknown_pair_has_no_entry() -> None:
    found = find_weights([perceptron()], constants=(0.1, 1.0), batch=8)
    assert isinstance(found.of((0.1, 1.0)), PairCoverage)
    with pytest.raises(KeyError):
        found.of((0.1, 2.0))
    assert find_weights([], constants=CONSTANTS).weights is None
