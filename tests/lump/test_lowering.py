"""What lumping is for: verdicts without a run, one run for all constants, graphs to look at, the plain one besides."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import epsinas_onnx
from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_onnx import Status
from epsinas_onnx.errors import RunError
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.runtime.providers import CPU
from epsinas_onnx.scoring.executors import ExecutionConfig, LumpedExecutor, PlainExecutor, lower
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.builders import build, command, save

CONVOLUTIONAL = (
    "(float[N,3,8,8] x) => (float[N,2] y) {"
    " a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, A)  r = Relu(a)"
    " b = Conv <kernel_shape = [3, 3]> (r, B)  p = GlobalAveragePool(b)  f = Flatten(p)  y = Gemm(f, C) }"
)
WEIGHTS = {"A": (16, 3, 3, 3), "B": (32, 16, 3, 3), "C": (32, 2)}
NORMALISED = (
    "(float[N,4] x) => (float[N,3] y) { h = MatMul(x, W)"
    " [norm] n = LayerNormalization <axis = -1> (h, S)  y = MatMul(n, V) }"
)
SETTING = ExecutionConfig([CPU], threads=1)


def outputs(
    model: onnx.ModelProto | ir.Model, constants: Sequence[float], lump: bool, batch: int = 4
) -> list[np.ndarray]:
    decided = plan(load_model(model), batch, GraphOptions())
    rng = np.random.default_rng(0)
    feeds = {spec.name: rng.standard_normal(spec.shape, np.float32) for spec in decided.specs}
    if lump:
        execution: LumpedExecutor | PlainExecutor = LumpedExecutor(
            lower(decided, SETTING, len(constants)), decided, SETTING
        )
    else:
        execution = PlainExecutor(decided, SETTING)
    return [one.output for one in execution.run(constants, feeds, None)]


def test_any_number_of_constants_goes_through_one_run() -> None:
    constants = (0.1, 0.5, 2.0, 3.0)
    together = outputs(build(CONVOLUTIONAL, **WEIGHTS), constants, lump=True)
    plain = outputs(build(CONVOLUTIONAL, **WEIGHTS), constants, lump=False)
    assert len(together) == 4
    for ours, theirs in zip(together, plain, strict=True):
        np.testing.assert_allclose(np.repeat(ours, 2), theirs, rtol=1e-5)


@pytest.mark.parametrize("lump", [True, False])
def test_a_normalisation_over_one_class_is_a_verdict_without_a_run(monkeypatch: pytest.MonkeyPatch, lump: bool) -> None:
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: pytest.fail("a session was made"))
    result = epsinas_onnx.score(build(NORMALISED, W=(4, 5), S=(5,), V=(5, 3)), batch=4, lump=lump)
    assert result.status is Status.CONSTANT
    assert result.reason is not None
    assert "node 'norm' (LayerNormalization) normalises identical values" in result.reason
    assert result.provider is None
    assert result.raw_score is None


def test_a_decomposed_normalisation_over_one_class_is_a_verdict_too() -> None:
    graph = (
        "(float[N,4] x) => (float[N,3] y) { h = MatMul(x, W)  m = ReduceMean <keepdims = 1> (h, last)"
        " [centre] d = Sub(h, m)  y = MatMul(d, V) }"
    )
    result = epsinas_onnx.score(build(graph, W=(4, 5), V=(5, 3), last=np.asarray([-1])), batch=4)
    assert result.status is Status.CONSTANT
    assert "node 'centre' (Sub)" in (result.reason or "")


def test_an_infinity_that_a_proof_makes_superfluous_is_still_an_overflow() -> None:
    graph = (
        "(float[N,4] x) => (float[N,3] y) { h = MatMul(x, W)  g = MatMul(h, V)  s = Softmax(g)"
        " t = MatMul(s, U)  u = MatMul(x, T)  y = Add(t, u) }"
    )
    weights = {"W": (4, 5), "V": (5, 6), "U": (6, 3), "T": (4, 3)}
    for lump in (True, False):
        result = epsinas_onnx.score(
            build(graph, **weights), batch=4, weights=(1e-3, 1e25), lump=lump, arithmetic="float32"
        )
        assert result.status is Status.OVERFLOW


def test_shapes_that_are_known_at_run_time_only_keep_constants_apart() -> None:
    graph = (
        "(float[N,4] x) => (float[M,3] y) { h = MatMul(x, W)  o = Relu(h)  z = NonZero(o)  t = Transpose(z)"
        " f = Cast <to = 1> (t)  y = MatMul(f, V) }"
    )
    proto = build(graph, W=(4, 5), V=(2, 3))
    decided = plan(load_model(proto), 4, GraphOptions())
    assert lower(decided, SETTING, 2).constants == 1
    ours, theirs = (outputs(proto, (0.5, 2.0), lump=lump) for lump in (True, False))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(np.unique(one), np.unique(other), rtol=1e-5)


def test_a_lumped_graph_that_fails_gives_way_to_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RunError("no")

    proto = build(CONVOLUTIONAL, **WEIGHTS)
    expected = epsinas_onnx.score(proto, batch=4, lump=False)
    monkeypatch.setattr(LumpedExecutor, "run", refuse)
    assert epsinas_onnx.score(proto, batch=4, arithmetic="float32").score == expected.score


def test_a_number_that_all_samples_share_decides_which_branch_is_lowered() -> None:
    graph = (
        "(float[N,4] x, int64 sr) => (float[N,5] y) { rate = Constant <value = int64 {16000}> ()  c = Equal(sr, rate)"
        " y = If (c) <then_branch = yes () => (float[N,5] a) { a = MatMul(x, W) },"
        " else_branch = no () => (float[N,5] b) { b = MatMul(x, BAD) }> }"
    )
    proto = build(graph, W=(4, 5), BAD=(7, 5))  # the branch that is not taken does not fit
    result = epsinas_onnx.score(proto, batch=4, inputs="normal")
    assert result.status is not Status.ERROR
    assert result.provider is not None


def test_a_deep_chain_without_normalisation_underflows_no_earlier_than_the_plain_graph() -> None:
    """How many channels are summed up must not be left for the end: 30 layers lose 1e-54 without it."""
    builder = GraphBuilder("chain")
    x = image = tensor_input("input", ["batch", 64, 6, 6])
    for index in range(30):
        x = builder.op("Relu", [builder.conv(x, f"conv{index}", 64, 64, 3)], f"relu{index}")
    model = builder.model([image], [typed_output(x, ["batch", 64, 6, 6])])
    (lumped,), (plain,) = (outputs(model, (1 / 400,), lump=lump) for lump in (True, False))
    assert plain.max() > 1e-3
    np.testing.assert_allclose(lumped.reshape(4, 36), plain.reshape(4, 64, 36)[:, 0], rtol=1e-4)


def test_inspect_shows_classes_operations_and_what_has_no_rule() -> None:
    found = epsinas_onnx.inspect(build(CONVOLUTIONAL, **WEIGHTS), batch=4)
    assert found.lumping is not None
    shapes = {value.value: (value.shape, value.classes) for value in found.lumping.values}
    assert shapes["b"] == ((4, 32, 6, 6), (4, 1, 6, 6))
    assert found.lumping.without_rule == ()
    hidden = build(CONVOLUTIONAL.replace("r = Relu(a)", "[odd] r = Hardmax(a)"), **WEIGHTS)
    found = epsinas_onnx.inspect(hidden, batch=4)
    assert found.lumping is not None
    assert found.lumping.without_rule == ("odd (Hardmax)",)


def test_multiply_adds_are_counted_by_hand() -> None:
    found = epsinas_onnx.inspect(build(CONVOLUTIONAL, **WEIGHTS), batch=4)
    assert found.lumping is not None
    before, after = found.lumping.multiply_adds
    assert before == 4 * (16 * 8 * 8 * 27 + 32 * 6 * 6 * 16 * 9 + 32 * 2)
    # All pixels of a grey image are one, so the first box filter is a matrix from 1 to 64 positions.
    assert after == 4 * (8 * 8 + 6 * 6 * 9)
    found = epsinas_onnx.inspect(build(CONVOLUTIONAL, **WEIGHTS), batch=4, inputs="normal")
    assert found.lumping is not None
    assert found.lumping.multiply_adds == (before, 4 * (8 * 8 * 9 + 6 * 6 * 9))  # a box filter for each convolution


def test_inspect_says_so_on_the_command_line(tmp_path: Path) -> None:
    path = save(build(CONVOLUTIONAL, **WEIGHTS), tmp_path / "net.onnx")
    done = command("inspect", path, "--batch", "4")
    assert done.code == 0
    assert "[4, 32, 6, 6]" in done.out
    assert "[4, 1, 6, 6]" in done.out
    assert "multiply-adds" in done.out
    record = json.loads(command("inspect", path, "--batch", "4", "--format", "json").out)
    assert record["lumping"]["values"][2]["classes"] == [4, 1, 6, 6]


def test_rewrite_writes_the_lumped_graph_as_a_standard_file(tmp_path: Path) -> None:
    path = save(build(CONVOLUTIONAL, **WEIGHTS), tmp_path / "net.onnx")
    target = tmp_path / "lumped.onnx"
    done = command("rewrite", path, "--weight", "0.5", "--lump", "--batch", "4", "-o", str(target))
    assert done.code == 0
    onnx.checker.check_model(onnx.load(target))
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_inputs()] == ["x"]
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8), np.float32)
    (lumped,) = session.run(["y"], {"x": x})
    (plain,) = outputs(build(CONVOLUTIONAL, **WEIGHTS), (0.5,), lump=False)
    np.testing.assert_allclose(np.repeat(lumped, 2), plain, rtol=1e-5)


def test_no_lump_runs_the_plain_graph_and_gives_the_same_score(tmp_path: Path) -> None:
    path = save(build(CONVOLUTIONAL, **WEIGHTS), tmp_path / "net.onnx")
    scores = [
        json.loads(
            command(
                "score",
                path,
                "--batch",
                "8",
                "--format",
                "json",
                flag,
                "--weights",
                "0.1,1",
                "--input",
                "normal",
                "--arithmetic",
                "float32",
            ).out
        )[0]
        for flag in ("--lump", "--no-lump")
    ]
    assert scores[0]["status"] == scores[1]["status"]
    assert scores[0]["raw_score"] == pytest.approx(scores[1]["raw_score"], rel=1e-3, abs=1e-6)
