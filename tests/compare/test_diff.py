"""What changed between two models: the comparison, its formats and the command."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from epsinas_onnx import Difference, ModelError, Status, UsageError, diff, strip
from epsinas_onnx.report.difference import to_markdown, to_text
from tests.builders import PERCEPTRON, Done, build, command, perceptron, save

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "models"
CELL = "nb201-c3-c3-p-s-c3-s", "nb201-c3-c3-c3-s-c3-c3"
WIDTH = 120


def compared(one: onnx.ModelProto, two: onnx.ModelProto) -> Difference:
    return diff(one, two, with_score=False)


def changes(found: Difference) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(one.before.name, one.after.name, one.changes) for one in found.alignment.changed]


def test_a_model_and_itself_differ_in_nothing() -> None:
    found = diff(perceptron(), perceptron(), batch=4, weights=(1e-3, 1.0))
    assert found.same
    assert found.same_graph
    assert (found.counts(), found.alignment.changed, found.alignment.removed, found.inputs) == ({}, (), (), ())
    assert found.before.facts.status is Status.OK
    text = to_text(found, WIDTH)
    assert "the same graph" in text
    assert "nodes:" not in text


def test_a_stripped_copy_differs_in_bytes_alone() -> None:
    proto = perceptron(width=400)
    found = diff(proto, strip(proto, anonymise=True), batch=4)
    assert found.same
    assert found.after.facts.size is not None
    assert found.before.facts.size is not None
    assert found.after.facts.size < found.before.facts.size
    assert found.before.facts.parameters == found.after.facts.parameters == 3 * 400 + 400 * 2 + 2


def test_nodes_keep_the_names_that_each_file_gives_them() -> None:
    other = build(
        "(float[N,3] q) => (float[N,2] z) { [one] h = MatMul(q, W)  [two] r = Relu(h)  [three] z = Gemm(r, V, B) }",
        W=(3, 5), V=(5, 2), B=(2,),
    )  # fmt: skip
    found = compared(perceptron(), other)
    assert [(node.name, node.operator) for node in found.alignment.removed] == [("act", "Tanh")]
    assert [(node.name, node.operator) for node in found.alignment.added] == [("two", "Relu")]
    assert changes(found) == [
        ("first", "one", ("input 1: weight [3,4] -> weight [3,5]",)),
        ("last", "three", ("input 1: weight [4,2] -> weight [5,2]",)),
    ]
    assert found.counts() == {"Relu": 1, "Tanh": -1}
    text = to_text(found, WIDTH)
    assert "- Tanh  ('act')" in text
    assert "+ Relu  ('two')" in text
    assert "'first' -> 'one'" in text


def test_numbers_are_those_of_inspect_for_one_sample() -> None:
    found = compared(perceptron(width=4), perceptron(width=5))
    one, two = found.before.facts, found.after.facts
    assert (one.parameters, two.parameters) == (3 * 4 + 4 * 2 + 2, 3 * 5 + 5 * 2 + 2)
    assert (one.multiply_adds, two.multiply_adds) == (3 * 4 + 4 * 2, 3 * 5 + 5 * 2)
    assert (one.opset, one.status, one.score) == (21, None, None)
    assert "+5 (+22.7%)" in to_text(found, WIDTH)


def test_a_fixed_batch_is_counted_by_sample() -> None:
    graph = "(float[%s,3] x) => (float[%s,2] y) { y = MatMul(x, W) }"
    found = compared(build(graph % ("N", "N"), W=(3, 2)), build(graph % ("8", "8"), W=(3, 2)))
    assert found.before.facts.multiply_adds == found.after.facts.multiply_adds == 6
    assert found.inputs == ("input 0: x FLOAT[free,3] -> x FLOAT[8,3]",)
    assert found.alignment.outputs == ("output 0: FLOAT[free,2] -> FLOAT[8,2]",)


def test_attributes_wiring_and_roles_are_told() -> None:
    graph = (
        "(float[N,3,8,8] x) => (float[N,4,8,8] y) { [c] a = Conv<pads = [1,1,1,1]>(x, W)  [r] b = Relu(a)"
        "  [t] d = Tanh(a)  [s] e = Sub(b, d)  [m] y = Mul(e, k) }"
    )
    number = np.array([0.5], np.float32)
    before = build(graph, W=(4, 3, 3, 3), k=number)
    changed = graph.replace("[1,1,1,1]", "[2,2,2,2]").replace("Sub(b, d)", "Sub(d, b)")
    after = build(changed, W=(4, 3, 5, 5), k=number)
    after.graph.node[-1].metadata_props.add(key="epsinas.role.1", value="weight")
    found = compared(before, after)
    assert changes(found) == [
        ("c", "c", ("pads [1,1,1,1] -> [2,2,2,2]", "input 1: weight [4,3,3,3] -> weight [4,3,5,5]")),
        ("s", "s", ("input 0: 'r' -> 't'", "input 1: 't' -> 'r'")),
        ("m", "m", ("input 1: [1] 0.5 -> weight [1]",)),
    ]
    (role,) = found.alignment.roles
    assert (role.before, role.slot, role.roles) == ("m", 1, ("constant", "weight"))
    assert "! 'm' input 1: constant -> weight" in to_text(found, WIDTH)


def test_a_node_in_between_is_one_change() -> None:
    graph = PERCEPTRON.replace("r = Tanh(h)", "s = Tanh(h)  [new] r = Abs(s)")
    found = compared(perceptron(), build(graph, W=(3, 4), V=(4, 2), B=(2,)))
    assert changes(found) == []
    assert [node.name for node in found.alignment.added] == ["new"]
    assert not found.alignment.removed


def test_untied_weights_are_told_apart() -> None:
    graph = "(float[N,8] x) => (float[N,8] y) { [a] h = MatMul(x, W)  [b] r = Relu(h)  [c] y = MatMul(r, %s) }"
    found = compared(build(graph % "W", W=(8, 8)), build(graph % "V", W=(8, 8), V=(8, 8)))
    assert changes(found) == [("c", "c", ("input 1: the tensor of 'a' -> its own",))]


def test_equal_changes_stand_on_one_line() -> None:
    found = diff(MODELS / f"{CELL[0]}.onnx", MODELS / f"{CELL[1]}.onnx", with_score=False)
    assert found.counts() == {"AveragePool": -15, "BatchNormalization": 30, "Conv": 30, "Relu": 30}
    assert len(found.alignment.added) == 90
    assert not found.alignment.changed
    lines = to_text(found, WIDTH).splitlines()
    assert sum(line.startswith(("-", "+", "!")) for line in lines) <= 10
    assert max(map(len, lines[1:])) <= WIDTH  # the first names both files, wherever they are


def test_restored_normalisations_are_said_of_the_one_that_has_them() -> None:
    with zipfile.ZipFile(ROOT / "tests" / "data" / "folded_exports.zip") as files:
        folded, unfolded = (files.read(f"torch-unet.{form}.onnx") for form in ("old", "unfolded"))
    found = diff(folded, unfolded, batch=2)
    assert not found.same_graph
    assert found.same_score
    assert any("BatchNorm restored" in note for note in found.before.notes)
    assert not any("BatchNorm restored" in note for note in found.after.notes)
    assert "before: note: " in to_text(found, WIDTH)
    assert found.counts()["BatchNormalization"] > 0


def test_what_no_node_shows_is_said_in_a_sentence() -> None:
    quantised = (
        "(float[N,16] x) => (float[N,16] y) { q = QuantizeLinear(x, s, z)  a = DequantizeLinear(q, s, z)"
        "  [m] h = MatMul(a, W)  y = Relu(h) }"
    )
    plain = "(float[N,16] x) => (float[N,16] y) { [m] h = MatMul(x, W)  y = Relu(h) }"
    scale = {"s": np.array(0.5, np.float32), "z": np.array(3, np.int8)}
    found = compared(build(plain, W=(16, 16)), build(quantised, W=(16, 16), **scale))
    assert not found.same_graph
    text = to_text(found, WIDTH)
    assert "quantised model" in text
    assert "the graphs differ in how they were read" in text


def test_large_and_very_different_graphs_are_aligned() -> None:
    def chain(*operators: str) -> onnx.ModelProto:
        names = ["x", *(f"v{index}" for index in range(len(operators) - 1)), "y"]
        nodes = [helper.make_node(op, [names[i]], [names[i + 1]]) for i, op in enumerate(operators)]
        ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
        return helper.make_model(helper.make_graph(nodes, "chain", ends[:1], ends[1:]))

    found = compared(chain(*["Relu", "Tanh"] * 90), chain(*["Relu", "Tanh"] * 50, "Abs", *["Relu", "Tanh"] * 40))
    assert [node.operator for node in found.alignment.added] == ["Abs"]
    assert not found.alignment.removed
    found = compared(chain(*["Relu"] * 1100), chain(*["Tanh"] * 1100))
    assert found.counts() == {"Relu": -1100, "Tanh": 1100}


def test_wrong_arguments_and_files_end_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="are equal in float32"):
        diff(perceptron(), perceptron(), weights=(1.0, 1.0))
    with pytest.raises(ModelError, match=r"^\S*a.onnx: there is no such file$"):
        diff(tmp_path / "a.onnx", perceptron())
    with pytest.raises(ModelError, match=r"neither model can be read: \S*a.onnx: .*; \S*b.onnx: "):
        diff(tmp_path / "a.onnx", tmp_path / "b.onnx")


def test_a_model_that_cannot_be_scored_is_compared_all_the_same() -> None:
    graph = PERCEPTRON.replace("Tanh(h)", "my.domain.Gate(h)")
    found = diff(perceptron(), build(graph, W=(3, 4), V=(4, 2), B=(2,)), batch=4)
    assert (found.before.facts.status, found.after.facts.status) == (Status.OK, Status.ERROR)
    assert found.after.reason is not None
    assert "Gate" in found.after.reason
    assert found.after.facts.parameters == found.before.facts.parameters
    assert not found.same_score


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    return save(perceptron(), tmp_path / "a.onnx"), save(perceptron("Relu", 5), tmp_path / "b.onnx")


def ran(*args: str) -> Done:
    return command("diff", *args, "--batch", "4")


def test_the_command_says_what_changed(files: tuple[str, str]) -> None:
    done = ran(*files, "--weights", "1e-3,1")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"{files[0]} -> {files[1]}\nthe graphs differ: fingerprints ")
    assert "- Tanh  ('act')" in done.out
    assert "score" in done.out
    assert ran(*files, "--weights", "1e-3,1").out == done.out
    without = ran(*files, "--no-score")
    assert "score" not in without.out
    assert "status" not in without.out


def test_json_has_everything(files: tuple[str, str]) -> None:
    record = json.loads(ran(*files, "--format", "json").out)
    assert record["same_graph"] is False
    assert record["operators"] == {"Relu": 1, "Tanh": -1}
    assert record["before"]["facts"]["status"] == "ok"
    assert record["before"]["facts"]["size"] == Path(files[0]).stat().st_size
    assert [node["name"] for node in record["alignment"]["removed"]] == ["act"]
    assert record["alignment"]["changed"][0]["changes"] == ["input 1: weight [3,4] -> weight [3,5]"]
    assert record["before"]["roles"] == {"weight": 2, "bias": 1}


def test_markdown_is_a_table_and_a_list(files: tuple[str, str]) -> None:
    done = ran(*files, "-f", "markdown", "--no-score")
    lines = done.out.splitlines()
    assert lines[0] == f"### `{files[0]}` -> `{files[1]}`"
    assert "| parameters | 22 | 27 | +5 (+22.7%) |" in lines
    assert lines.count("```diff") == lines.count("```") == 2
    assert "+ Relu  ('act')" in lines
    assert to_markdown(diff(*files, with_score=False)) == done.out


def test_exit_codes(files: tuple[str, str], tmp_path: Path) -> None:
    assert ran(*files, "--exit-code").code == 1
    assert ran(*files, "--no-score", "--exit-code").code == 1
    assert ran(files[0], files[0], "--exit-code").code == 0
    missing = ran(files[0], str(tmp_path / "none.onnx"))
    assert (missing.code, missing.out) == (3, "")
    assert missing.err.count("\n") == 1
    both = ran(str(tmp_path / "none.onnx"), str(tmp_path / "nothing.onnx"))
    assert both.code == 3
    assert both.err.startswith("Error: neither model can be read: ")
    assert ran(*files, "--weights", "1").code == 2


def test_only_the_score_may_differ(tmp_path: Path) -> None:
    graph = (
        "(float[N,3,8,8] x) => (float[N,4] y) { a = Conv<pads = [1,1,1,1]>(x, W, B)  b = Relu(a)"
        "  c = GlobalAveragePool(b)  d = Flatten(c)  y = Tanh(d) }"
    )
    plain, folded = (build(graph, W=(4, 3, 3, 3), B=(4,)) for _ in range(2))
    folded.graph.node[0].metadata_props.add(key="epsinas.batch_norm", value="folded")
    paths = save(plain, tmp_path / "a.onnx"), save(folded, tmp_path / "b.onnx")
    found = diff(*paths, batch=4)
    assert found.same_graph
    assert not found.same
    assert ran(*paths, "--exit-code").code == 1
    assert ran(*paths, "--exit-code", "--no-score").code == 0
    assert ran(*paths, "--exit-code", "--restore-batchnorm", "none").code == 0
