"""What other people's files hold: maps, lists of boxes, integers, strings, sequences, states, fills, and no weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from epsinas_onnx import ModelError, Status, UnsupportedError, inspect, score, score_many, strip
from tests.builders import build, command, perceptron, save

OPTIONS: dict[str, Any] = {"weights": (0.1, 0.5), "batch": 6, "providers": "cpu"}


def roles(model: Any) -> dict[str, str]:
    return {use.place: use.role for use in inspect(model).uses}


def classifier() -> onnx.ModelProto:
    """Return a classifier as skl2onnx writes it: labels, and a ZipMap of probabilities."""
    proto = build("(float[N,3] x) => (int64[N] label, float[N,4] p) {"
                  "  h = MatMul(x, W)  t = Tanh(h)  p = MatMul(t, V)  label = ArgMax <axis = 1, keepdims = 0> (p) }",
                  W=(3, 5), V=(5, 4))  # fmt: skip
    zipped = helper.make_node("ZipMap", ["p"], ["chances"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2, 3])
    proto.graph.node.append(zipped)
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    kind = onnx.helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    proto.graph.output[1].CopyFrom(helper.make_value_info("chances", helper.make_sequence_type_proto(kind)))
    return proto


def test_a_map_of_probabilities_is_compared_as_their_tensor() -> None:
    plain = build("(float[N,3] x) => (float[N,4] p) { h = MatMul(x, W)  t = Tanh(h)  p = MatMul(t, V) }",
                  W=(3, 5), V=(5, 4))  # fmt: skip
    found = score(classifier(), **OPTIONS)
    assert (found.output, found.raw_score) == (("p",), score(plain, **OPTIONS).raw_score)
    assert score(strip(classifier()), **OPTIONS).raw_score == found.raw_score
    assert [value.name for value in strip(classifier()).graph.output] == ["label", "chances"]


def test_a_map_that_must_be_fed_is_refused() -> None:
    proto = classifier()
    kind = onnx.helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    proto.graph.input[0].CopyFrom(helper.make_value_info("x", kind))
    with pytest.raises(UnsupportedError, match="input 'x' is a map"):
        score(proto, **OPTIONS)


def test_trees_have_no_weights_and_the_reason_says_so() -> None:
    proto = build("(float[N,3] x) => (float[N,1] y) { y = Identity(x) }")
    node = helper.make_node(
        "TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1,
        nodes_treeids=[0, 0, 0], nodes_nodeids=[0, 1, 2], nodes_featureids=[0, 0, 0], nodes_values=[0.1, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[1, 0, 0], nodes_falsenodeids=[2, 0, 0],
        target_treeids=[0, 0], target_nodeids=[1, 2], target_ids=[0, 0], target_weights=[1.0, 2.0],
    )  # fmt: skip
    proto.graph.node[0].CopyFrom(node)
    proto.opset_import.add(domain="ai.onnx.ml", version=1)
    found = score(proto, **{**OPTIONS, "batch": 64})
    assert found.status is Status.NOISE
    assert "no weights" in str(found.reason)
    assert "TreeEnsembleRegressor" in str(found.reason)


DETECTOR = (
    "(float[N,4,8,8] x) => (float[?,4] boxes) { c = Conv <pads = [1, 1, 1, 1]> (x, W)  t = Tanh(c)"
    "  f = Reshape(t, all)  b = Slice(f, zero, four, one)  s = ReduceSum(f, one)  a = Unsqueeze(b, zero)"
    "  r = Reshape(s, rows)  k = NonMaxSuppression(a, r, most, overlap, least)  i = Gather <axis = 1> (k, two)"
    "  l = Reshape(i, flat)  boxes = Gather(b, l) }"
)
BOXES = {
    "W": (6, 4, 3, 3), "all": np.array([-1, 6]), "zero": np.array([0]), "four": np.array([4]), "one": np.array([1]),
    "rows": np.array([1, 1, -1]), "two": np.array([2]), "flat": np.array([-1]), "most": np.array([100]),
    "overlap": np.array([0.9], np.float32),
}  # fmt: skip


def test_boxes_that_were_selected_cannot_be_compared_and_what_comes_before_can() -> None:
    proto = build(DETECTOR, **BOXES, least=np.array([0.5], np.float32))
    with pytest.raises(ModelError, match=r"depends on the values.*'NonMaxSuppression\(k\)'.*--output-name") as caught:
        score(proto, weights=(1e-3, 0.5), batch=6, providers="cpu")
    named = str(caught.value).rpartition("such as '")[2].rstrip("'")
    assert score(proto, weights=(1e-3, 0.5), batch=6, providers="cpu", outputs=named).raw_score is not None
    assert score(proto, weights=(1e-3, 0.5), batch=6, providers="cpu", outputs="t").status is Status.OK


def test_outputs_that_are_labels_are_passed_over() -> None:
    graph = (
        "(float[N,3] x) => (int64[N] label, string[N] word, float[N,4] p) { h = MatMul(x, W)  p = Tanh(h)"
        "  label = ArgMax <axis = 1, keepdims = 0> (p)  word = Gather(names, label) }"
    )
    proto = build(graph, W=(3, 4))
    proto.graph.initializer.append(helper.make_tensor("names", TensorProto.STRING, [4], [b"a", b"b", b"c", b"d"]))
    assert score(proto, **OPTIONS).output == ("p",)


def test_sequences_and_optionals_inside_a_graph_are_run() -> None:
    graph = (
        "(float[N,4] x) => (float[N,4] y) { a = MatMul(x, W)  s = SplitToSequence <axis = 1> (a, two)"
        "  f = SequenceAt(s, zero)  l = SequenceAt(s, one)  q = SequenceConstruct(l, f)"
        "  c = ConcatFromSequence <axis = 1> (q)  o = Optional(c)  g = OptionalGetElement(o)  y = Tanh(g) }"
    )
    proto = build(graph, W=(4, 4), two=np.array(2), zero=np.array(0), one=np.array(1))
    assert score(proto, **OPTIONS).status is Status.OK


@pytest.mark.parametrize("kind", ["seq(tensor(float))", "optional(tensor(float))"])
def test_sequences_and_optionals_that_must_be_fed_are_refused(kind: str) -> None:
    proto = build("(float[N,4] x) => (float[N,4] y) { y = MatMul(x, W) }", W=(4, 4))
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, ["N", 4])
    make = helper.make_sequence_type_proto if kind.startswith("seq") else helper.make_optional_type_proto
    proto.graph.input.append(helper.make_value_info("s", make(tensor)))
    with pytest.raises(UnsupportedError, match=r"input 's' is a .*Type, and only tensors can be fed"):
        score(proto, **OPTIONS)


def test_preprocessing_in_the_graph_is_part_of_the_model() -> None:
    graph = (
        "(uint8[N,16,16,3] x) => (float[N,5] y) { f = Cast <to = 1> (x)  t = Transpose <perm = [0, 3, 1, 2]> (f)"
        "  s = Mul(t, scale)  m = Sub(s, mean)  d = Div(m, std)  c = Conv(d, W)  r = Tanh(c)"
        "  g = GlobalAveragePool(r)  v = Flatten(g)  y = MatMul(v, V) }"
    )
    values = {"scale": np.asarray(1 / 255, np.float32), "mean": np.full((3, 1, 1), 0.4, np.float32),
              "std": np.full((3, 1, 1), 0.2, np.float32)}  # fmt: skip
    proto = build(graph, W=(8, 3, 3, 3), V=(8, 5), **values)
    assert score(proto, **OPTIONS).status is Status.OK
    kept = {use.tensor for use in inspect(proto).uses if use.role == "constant"}
    assert kept == {"scale", "mean", "std"}


def test_weights_that_a_body_captures_or_holds_have_roles() -> None:
    graph = (
        "(float[N,4] x) => (float[N,4] y) { y = Loop(three, , x) <body = b (int64 i, bool c, float[N,4] h)"
        " => (bool d, float[N,4] n) { d = Identity(c)  m = MatMul(h, W)  n = Tanh(m) }> }"
    )
    proto = build(graph, W=(4, 4), three=np.array(3))
    assert "weight" in roles(proto).values()
    assert score(proto, **OPTIONS).status is Status.OK


def test_states_with_a_fixed_batch_beside_a_free_one_get_the_samples() -> None:
    def recurrent(batch: str) -> onnx.ModelProto:
        graph = (
            f"(float[N,5,3] x, float[2,{batch},4] h) => (float[N,4] y) {{ t = Transpose <perm = [1, 0, 2]> (x)"
            "  a, b = Split <axis = 0, num_outputs = 2> (h)  s, l = GRU <hidden_size = 4> (t, W, R, B, , a)"
            "  u, v = GRU <hidden_size = 4> (t, W, R, B, , b)  c = Add(l, v)  y = Squeeze(c, zero) }"
        )
        return build(graph, W=(1, 12, 3), R=(1, 12, 4), B=(1, 24), zero=np.array([0]))

    fixed, free = (score(recurrent(batch), **OPTIONS) for batch in ("1", "N"))
    assert fixed.raw_score == pytest.approx(free.raw_score, rel=1e-6)
    assert any("fixes the batch to 1" in note for note in fixed.warnings)


@pytest.mark.parametrize("fill", ["f = Expand(number, s)", "f = ConstantOfShape(s)"])
def test_a_number_repeated_to_the_size_of_the_signal_is_no_weight(fill: str) -> None:
    graph = (
        "(float[N,4,5] x) => (float[N,4,6] y) { d = Shape <start = 1, end = 2> (x)  s = Identity(d) " + fill +
        "  n = BatchNormalization(x, f, b, m, v)  y = MatMul(n, W) }"
    )  # fmt: skip
    stored = np.zeros(4, np.float32)
    proto = build(graph, b=stored, m=stored, v=stored + 1, W=(5, 6), number=np.asarray(1, np.float32))
    assert {place: role for place, role in roles(proto).items() if ":1" in place} == {
        "BatchNormalization(n):1": "constant", "MatMul(y):1": "weight",
    }  # fmt: skip


def test_a_weight_reshaped_by_a_product_of_its_sizes_has_a_shape() -> None:
    graph = (
        "(float[N,6] x) => (float[N,4] y) { s = Shape(W)  f = Gather(s, first)  p = ReduceProd <keepdims = 1> (f)"
        "  c = Concat <axis = 0> (p, rest)  w = Reshape(W, c)  h = MatMul(x, w)  y = Tanh(h) }"
    )
    proto = build(graph, W=(2, 3, 4), first=np.array([0, 1]), rest=np.array([-1]))
    assert [use.shape for use in inspect(proto).uses if use.role == "weight"] == [(6, 4)]
    assert score(proto, **OPTIONS).status is Status.OK


class Ending:
    """A network whose process ends while it is scored, as ONNX Runtime's does over some files."""

    name = "ending"

    def build(self) -> ir.Model:
        os.kill(os.getpid(), signal.SIGFPE)
        raise AssertionError


def test_a_file_that_ends_its_process_costs_one_row() -> None:
    results = list(score_many([perceptron(), Ending(), perceptron()], isolate=True, **OPTIONS))
    assert [result.status for result in results] == [Status.OK, Status.ERROR, Status.OK]
    assert "its worker process died twice (SIGFPE)" in str(results[1].reason)
    assert "give larger ones with --shape" in str(results[1].reason)


def test_several_files_are_scored_in_another_process(tmp_path: Path) -> None:
    paths = [save(perceptron(), tmp_path / f"{name}.onnx") for name in "ab"]
    with mock.patch("epsinas_onnx.scoring.single.score_or_error", side_effect=AssertionError):
        done = command("score", *paths, "--weights", "0.1,0.5", "--batch", "6", "--format", "csv")
    assert done.out.count(",ok,") == 2


def test_an_output_without_entries_is_an_error() -> None:
    proto = build("(float[N,3] x) => (float[?,?] y) { h = MatMul(x, W)  y = Slice(h, zero, zero, zero) }",
                  W=(3, 3), zero=np.array([0]))  # fmt: skip
    with pytest.raises(ModelError, match="the output has no entries"):
        score(proto, **OPTIONS)
