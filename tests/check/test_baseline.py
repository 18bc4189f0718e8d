"""Baselines: what they keep, what counts as a change, and what only looks like one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.builders import PERCEPTRON, build, command, perceptron, save
from tests.check.checking import checked, of, rules
from tests.scoring.test_score_invariance import reordered

NAME = "epsinas-baseline.json"
CONFIG = f'baseline = "{NAME}"\nscore = {{ batch = 8 }}\n'


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a configuration, a model and the baseline of it, and go there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "epsinas-onnx.toml").write_text(CONFIG)
    save(perceptron(), tmp_path / "model.onnx")
    done = command("baseline", "write", "model.onnx")
    assert done.code == 0, done.err
    return tmp_path


def exported_again(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the same network with other weights, names and node order, as another run of an exporter writes it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng, names = np.random.default_rng(99), {}
    for tensor in copy.graph.initializer:
        array = rng.standard_normal(tuple(tensor.dims)).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    for value in (*copy.graph.input, *copy.graph.output, *copy.graph.initializer):
        value.name = names.setdefault(value.name, f"renamed_{len(names)}")
    for node in copy.graph.node:
        for field in (node.input, node.output):
            field[:] = [names.setdefault(name, f"renamed_{len(names)}") if name else "" for name in field]
        node.name = f"other/{node.op_type}"
    copy.producer_name = "another exporter"
    return reordered(copy)


def test_the_file_is_small_sorted_and_says_what_it_is_of(kept: Path) -> None:
    save(perceptron("Sigmoid"), kept / "a" / "other.onnx")
    assert command("baseline", "write", ".").code == 0
    record = json.loads((kept / NAME).read_text())
    assert list(record["models"]) == ["a/other.onnx", "model.onnx"]
    entry = record["models"]["model.onnx"]
    assert (entry["status"], entry["parameters"], entry["multiply-adds"], entry["opset"]) == ("ok", 22, 20, 21)
    assert 0 < entry["score"] < 2
    assert record["settings"]["batch"] == 8
    assert len((kept / NAME).read_text()) < 2_000


def test_an_unchanged_model_passes_and_so_does_one_that_was_exported_again(kept: Path) -> None:
    assert checked(kept / "model.onnx", kept, CONFIG).findings == ()
    save(exported_again(perceptron()), kept / "model.onnx")
    assert checked(kept / "model.onnx", kept, CONFIG).findings == ()
    done = command("baseline", "diff", ".")
    assert (done.code, done.out) == (0, "")


def test_another_architecture_differs_in_graph_and_score(kept: Path) -> None:
    save(perceptron("Sigmoid"), kept / "model.onnx")
    found = checked(kept / "model.onnx", kept, CONFIG)
    assert rules(found) == ["score-baseline", "graph-baseline"]
    assert "as many parameters and multiply-adds" in of("graph-baseline", found.findings)[0].message
    assert "baseline write" in of("graph-baseline", found.findings)[0].fix
    done = command("baseline", "diff", ".")
    assert done.code == 1
    assert done.out.startswith("~ model.onnx: graph ")
    assert "score " in done.out


def test_another_width_names_what_grew(kept: Path) -> None:
    save(perceptron(width=5), kept / "model.onnx")
    message = of("graph-baseline", checked(kept / "model.onnx", kept, CONFIG).findings)[0].message
    assert "parameters 22 -> 27, multiply-adds 20 -> 25" in message


def test_a_score_that_rounding_moved_is_the_same_and_is_not_written_again(kept: Path) -> None:
    path = kept / NAME
    record = json.loads(path.read_text())
    record["models"]["model.onnx"]["score"] *= 1 + 5e-4
    path.write_text(text := json.dumps(record))
    assert checked(kept / "model.onnx", kept, CONFIG).findings == ()
    assert command("baseline", "write", "model.onnx").code == 0
    assert json.loads(path.read_text())["models"] == json.loads(text)["models"]
    record["models"]["model.onnx"]["score"] *= 1.01
    path.write_text(json.dumps(record))
    found = checked(kept / "model.onnx", kept, CONFIG)
    assert rules(found) == ["score-baseline"]
    assert rules(checked(kept / "model.onnx", kept, f"{CONFIG}rules.score-baseline.relative = 0.1\n")) == []


def test_another_version_is_named_where_the_score_differs(kept: Path) -> None:
    path = kept / NAME
    record = json.loads(path.read_text())
    record["models"]["model.onnx"]["score"] *= 2
    record["written-by"] = "epsinas-onnx 0.0.1"
    path.write_text(json.dumps(record))
    message = of("score-baseline", checked(kept / "model.onnx", kept, CONFIG).findings)[0].message
    assert message.endswith("; the baseline was written by epsinas-onnx 0.0.1")


def test_other_options_are_said_rather_than_compared(kept: Path) -> None:
    found = checked(kept / "model.onnx", kept, CONFIG.replace("batch = 8", "batch = 16"))
    assert [one.message for one in found.findings] == [
        "the baseline was written for other options than those of now: batch 16 against 8"
    ]


def test_a_status_that_changed_says_why(kept: Path) -> None:
    save(build(PERCEPTRON.replace("Tanh(h)", "Mul(h, zero)"), W=(3, 4), V=(4, 2), B=(2,), zero=np.zeros(1, np.float32)),
         kept / "model.onnx")  # fmt: skip
    message = of("score-baseline", checked(kept / "model.onnx", kept, CONFIG).findings)[0].message
    assert message.startswith("the status is constant, and was ok (the output does not depend on the input")


def test_a_model_that_the_baseline_does_not_know(kept: Path) -> None:
    save(perceptron(), kept / "new.onnx")
    assert rules(checked(kept / "new.onnx", kept, CONFIG)) == ["missing-baseline"]
    done = command("baseline", "diff", ".")
    assert (done.code, done.out.startswith("+ new.onnx: score ")) == (1, True)


def test_models_that_are_not_named_stay_and_those_that_are_gone_go_when_told(kept: Path) -> None:
    save(perceptron("Sigmoid"), kept / "other.onnx")
    assert command("baseline", "write", "other.onnx").code == 0
    (kept / "model.onnx").unlink()
    done = command("baseline", "diff", "other.onnx")
    assert (done.code, done.out) == (1, "- model.onnx: the file is gone\n")
    assert command("baseline", "write", "other.onnx").code == 0
    assert list(json.loads((kept / NAME).read_text())["models"]) == ["model.onnx", "other.onnx"]
    assert command("baseline", "write", "other.onnx", "--prune").code == 0
    assert list(json.loads((kept / NAME).read_text())["models"]) == ["other.onnx"]


def test_entries_that_stay_keep_the_options_they_were_written_for(kept: Path) -> None:
    save(perceptron("Sigmoid"), kept / "other.onnx")
    (kept / "epsinas-onnx.toml").write_text(CONFIG.replace("batch = 8", "batch = 16"))
    assert command("baseline", "write", "other.onnx").code == 0
    record = json.loads((kept / NAME).read_text())
    assert record["settings"]["batch"] == 16
    assert record["models"]["model.onnx"]["settings"]["batch"] == 8
    assert "settings" not in record["models"]["other.onnx"]


def test_options_that_move_from_the_whole_to_a_path_stay_with_the_model(kept: Path) -> None:
    moved = CONFIG.replace("batch = 8", "batch = 16") + '[[paths]]\npattern = "mo*"\nscore = { batch = 8 }\n'
    (kept / "epsinas-onnx.toml").write_text(moved)
    assert command("baseline", "write", "model.onnx").code == 0
    record = json.loads((kept / NAME).read_text())
    assert (record["settings"]["batch"], record["models"]["model.onnx"]["settings"]["batch"]) == (16, 8)
    assert checked(kept / "model.onnx", kept, moved).findings == ()


def test_options_of_a_path_are_kept_with_its_models(kept: Path) -> None:
    config = CONFIG + '[[paths]]\npattern = "mo*"\nscore = { batch = 4 }\n'
    (kept / "epsinas-onnx.toml").write_text(config)
    assert command("baseline", "write", "model.onnx").code == 0
    assert json.loads((kept / NAME).read_text())["models"]["model.onnx"]["settings"]["batch"] == 4
    assert checked(kept / "model.onnx", kept, config).findings == ()


def test_a_model_without_a_score_that_can_be_kept_costs_one_line(kept: Path) -> None:
    (kept / "broken.onnx").write_bytes(b"nothing")
    save(perceptron("Sigmoid"), kept / "other.onnx")
    done = command("baseline", "write", ".")
    assert done.code == 3
    assert "Error: broken.onnx: " in done.err
    assert set(json.loads((kept / NAME).read_text())["models"]) == {"model.onnx", "other.onnx"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "is no baseline"),
        ('{"version": 2}', "is no baseline: version: Input should be 1"),
        ('{"models": {"a.onnx": {"status": "ok"}}}', "models.a.onnx.fingerprint: Field required"),
        (None, "there is no baseline"),
    ],
)
def test_a_baseline_that_is_none_is_one_sentence(text: str | None, message: str, kept: Path) -> None:
    (kept / NAME).unlink()
    if text is not None:
        (kept / NAME).write_text(text)
    for words in (("check", "."), ("baseline", "diff", ".")):
        done = command(*words)
        assert (done.code, message in done.err, done.err.count("\n")) == (2, True, 1), done.err
