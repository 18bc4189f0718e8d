"""Which arithmetic scores a model, and what the record says of the other."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import epsinas_onnx
from epsinas_exporters.spaces import nasbench201
from epsinas_onnx import RunError, Score, Status, UsageError, score
from epsinas_onnx.evaluate_lumped.fused import find
from epsinas_onnx.evaluate_lumped.fused.compiled import machine
from epsinas_onnx.report import ranked
from epsinas_onnx.scoring import judged
from tests.builders import build, command, perceptron

MODELS = Path(__file__).parents[2] / "models"
CELLS = sorted(MODELS.glob("nb201-*.onnx"))
CONVOLUTIONS = ("nor_conv_1x1", "nor_conv_3x3")


def scored(model: Any, **options: Any) -> Score:
    return score(model, **{"batch": 16, "providers": "cpu", "threads": 1, **options})


def fewest_convolutions(arch: str) -> int | None:
    """Return how many convolutions lie on the path through a cell that has the fewest, None without a path."""
    operations = nasbench201.parse(arch).operations
    edges = dict(zip([(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], operations, strict=True))
    paths = [[(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)]]
    counts = [
        sum(edges[edge] in CONVOLUTIONS for edge in path) for path in paths if all(edges[e] != "none" for e in path)
    ]
    return min(counts, default=None)


@pytest.mark.parametrize("arch", nasbench201.architectures()[::1202])
def test_the_order_counts_the_layers_of_the_shortest_path(arch: str) -> None:
    """Six layers lie outside of the cells, of which there are 15, each convolution with a weight and a scale."""
    found = scored(nasbench201.build(arch))
    fewest = fewest_convolutions(arch)
    if fewest is None:
        assert (found.status, found.order) == (Status.CONSTANT, None)
        return
    assert found.status is Status.OK
    assert found.order == 6 + 30 * fewest
    assert found.arithmetic == "exact"
    assert found.float32_status is (Status.OK if fewest == 0 else Status.UNDERFLOW)


@pytest.mark.parametrize("path", CELLS, ids=lambda path: path.stem)
def test_exact_is_float32_within_rounding_where_that_has_a_score(path: Path) -> None:
    exact, published = scored(path, batch=64), scored(path, batch=64, arithmetic="float32")
    assert exact.float32_status is published.status is published.float32_status
    if published.score is not None:
        assert exact.score == pytest.approx(published.score, rel=2e-4, abs=2e-6)
    assert published.order is None


@pytest.mark.parametrize("depth", [3, 60])
def test_a_network_that_is_homogeneous_in_its_weights_has_score_0(depth: int) -> None:
    nodes = "".join(f"h{i} = MatMul(r{i}, W{i})  r{i + 1} = Relu(h{i})  " for i in range(depth))
    graph = f"(float[N,3] x) => (float[N,5] y) {{ r0 = Identity(x)  {nodes} y = MatMul(r{depth}, V) }}"
    widths = [3, *itertools.repeat(5, depth)]
    weights = {f"W{i}": (widths[i], widths[i + 1]) for i in range(depth)}
    found = scored(build(graph, **weights, V=(5, 5)))
    assert (found.status, found.score, found.order) == (Status.OK, 0.0, depth + 1)
    assert any(f"homogeneous of degree {depth + 1} in its weights" in note for note in found.warnings)


def test_a_signal_that_float32_ends_is_scored_all_the_same() -> None:
    """1e-7 to the power 80 is 1e-560, which even float64 has no number for."""
    nodes = "".join(f"h{i} = MatMul(r{i}, W)  s{i} = Tanh(h{i})  r{i + 1} = Identity(s{i})  " for i in range(80))
    graph = f"(float[N,3] x) => (float[N,3] y) {{ r0 = Identity(x)  {nodes} y = MatMul(r80, W) }}"
    proto = build(graph, W=(3, 3))
    found = scored(proto)
    assert found.status is Status.OK
    assert found.score is not None
    assert found.score > 0.01
    assert found.float32_status is Status.UNDERFLOW
    assert found.order == 81
    ended = scored(proto, arithmetic="float32")
    assert (ended.status, ended.score, ended.arithmetic) == (Status.UNDERFLOW, None, "float32")


def test_what_costs_much_is_scored_in_float32_first(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = scored(perceptron())
    monkeypatch.setattr(judged, "LARGE", 0)
    first = scored(perceptron())
    assert (exact.arithmetic, first.arithmetic) == ("exact", "float32")
    assert first.score == pytest.approx(exact.score, rel=1e-5)
    assert first.order == exact.order
    lost = MODELS / "nb201-c3-n-n-c1-c3-n.onnx"
    assert scored(lost).arithmetic == "exact"


@pytest.mark.skipif(machine() is None, reason="nothing compiles chains")
def test_what_chains_compute_does_not_cost_much(monkeypatch: pytest.MonkeyPatch) -> None:
    file = MODELS / "nb201-p-s-n-n-n-s.onnx"
    exact = scored(file)
    monkeypatch.setattr(judged, "LARGE", 4_000)
    assert scored(file).arithmetic == "exact"
    with monkeypatch.context() as patch:
        patch.setattr(find, "machine", lambda: None)
        first = scored(file)
    assert first.arithmetic == "float32"
    assert first.score == pytest.approx(exact.score, rel=1e-4)
    assert (first.order, first.status) == (exact.order, exact.status)


def test_what_cannot_be_evaluated_exactly_is_run_in_float32_or_refused() -> None:
    sequence = build(
        "(float[N,4] x) => (float[N,4] y) { h = MatMul(x, W)  t = Tanh(h)  s = SplitToSequence <axis = 1> (t, two)"
        "  a = SequenceAt(s, one)  b = SequenceAt(s, zero)  y = Concat <axis = 1> (a, b) }",
        W=(4, 4), two=np.array(2), zero=np.array(0), one=np.array(1),
    )  # fmt: skip
    assert scored(sequence).arithmetic == "float32"
    with pytest.raises(RunError):
        scored(sequence, arithmetic="exact")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lump": False}, "it cannot do without lumping"),
        ({"dtype": "model"}, "does not round"),
        ({"providers": "cuda"}, "on the CPU"),
        ({"arithmetic": "double"}, "auto, exact, float32"),
    ],
    ids=str,
)
def test_options_that_exclude_each_other_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        scored(perceptron(), **{"arithmetic": "exact", **options})


def test_without_lumping_the_published_procedure_runs() -> None:
    found = scored(perceptron(), lump=False)
    assert (found.arithmetic, found.float32_status) == ("float32", Status.OK)


def test_a_file_run_sample_by_sample_is_scored_exactly() -> None:
    """A batch of 1 that a reshape writes down cannot be loosened."""
    graph = "(float[1,6] x) => (float[1,3] y) { r = Reshape(x, shape)  m = MatMul(r, W)  t = Tanh(m)  y = ReduceSum"
    graph += " <keepdims = 0> (t, axes) }"
    proto = build(graph, shape=np.array([1, 2, 3]), W=(3, 3), axes=np.array([1]))
    inputs = np.random.default_rng(0).standard_normal((16, 6), np.float32)
    together = onnx.ModelProto()
    together.CopyFrom(proto)
    dim = together.graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    dim.dim_param = "N"
    together.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "N"
    shape = next(tensor for tensor in together.graph.initializer if tensor.name == "shape")
    shape.CopyFrom(onnx.numpy_helper.from_array(np.array([-1, 2, 3]), "shape"))
    one, other = scored(proto, inputs=inputs), scored(together, inputs=inputs)
    assert one.arithmetic == other.arithmetic == "exact"
    assert one.score == pytest.approx(other.score, rel=1e-9)


def test_the_table_marks_what_is_beyond_float32_and_says_that_orders_differ() -> None:
    done = command("score", *map(str, CELLS), "--batch", "16", "--provider", "cpu")
    lines = done.out.splitlines()
    assert lines[0].split() == ["#", "model", "score", "status", "order", "float32", "parameters", "seconds"]
    beyond = {line.split()[1]: "underflow" in line for line in lines if line.split()[0].isdigit()}
    for path in CELLS:
        found = scored(path)
        if found.score is not None:
            assert beyond[str(path)] == (found.float32_status is Status.UNDERFLOW)
    assert lines[-1].startswith("orders from 6 to 96: scores of different order lie on different scales")
    same = command("score", *(str(path) for path in CELLS if scored(path).order == 6), "--batch", "16")
    assert same.out.splitlines()[-1] == "5 of 5 scored"


def test_the_default_is_auto_and_the_command_line_chooses() -> None:
    path = str(MODELS / "nb201-c3-n-n-c1-c3-n.onnx")
    for given, wanted in (
        ([], "exact"),
        (["--arithmetic", "exact"], "exact"),
        (["--arithmetic", "float32"], "float32"),
    ):
        done = command("score", path, "--batch", "16", "--provider", "cpu", "--format", "jsonl", *given)
        assert f'"arithmetic": "{wanted}"' in done.out
    assert command("score", path, "--arithmetic", "double").code == 2
    assert epsinas_onnx.score(path, batch=16).arithmetic == "exact"


def test_what_few_samples_do_not_tell_all_are_asked() -> None:
    """Sixteen samples, among them the first and the last, saturate to the same; others in between do not."""
    proto = build("(float[N,1] x) => (float[N,1] y) { h = MatMul(x, W)  y = Tanh(h) }", W=(1, 1))
    inputs = np.full((256, 1), 50.0, np.float32)
    inputs[104:114, 0] = np.linspace(0.1, 1, 10)
    few = np.linspace(0, 255, judged.FEW).astype(int)
    assert set(inputs[few, 0]) == {50.0}
    found = scored(proto, inputs=inputs)
    assert found.float32_status is scored(proto, inputs=inputs, arithmetic="float32").status is Status.OK


def test_a_large_network_has_an_order_where_few_samples_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where float32 goes first, a few samples are asked for the order; behind a ReLU these may all be 0."""
    graph = "{ h = MatMul(x, W)  r = Relu(h)  s = Add(r, k)  a = Sqrt(s)  y = MatMul(a, W) }"
    proto = build(f"(float[N,1] x) => (float[N,1] y) {graph}", W=(1, 1), k=np.ones(1, np.float32))
    inputs = np.full((64, 1), -1.0, np.float32)
    inputs[5:12, 0] = [1.0, 2.0, 4.0, 7.0, 1.5, 2.5, 3.0]
    monkeypatch.setattr(judged, "LARGE", 0)
    found = scored(proto, inputs=inputs, weights=(0.5, 2.0))
    assert (found.status, found.arithmetic, found.order) == (Status.OK, "float32", 2.0)


def test_scores_that_are_shown_alike_keep_the_order_of_their_files() -> None:
    one, other = scored(perceptron()), scored(perceptron())
    assert one.score is not None
    raised = dataclasses.replace(other, score=one.score + 1e-9)
    assert ranked([one, raised]) == [one, raised]
