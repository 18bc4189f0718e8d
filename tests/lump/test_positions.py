"""Positions that are equal stay merged: where they come from, what windows make of them, and the scores that follow."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import epsinas_onnx
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.inputs.generate import grey_ramp, perturb
from epsinas_onnx.lump.partition import Partition, of_array
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.windows import Window, seen
from epsinas_onnx.runtime.providers import CPU
from epsinas_onnx.scoring import executors
from epsinas_onnx.scoring.executors import ExecutionConfig, LumpedExecutor, PlainExecutor, lower
from epsinas_onnx.scoring.feeds import Feeds, equal_positions
from epsinas_onnx.scoring.metric import amplification
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan
from tests.builders import build
from tests.evaluate_lumped.whole import plain_double
from tests.lump.harness import Operand, check, examples, weight
from tests.lump.networks import SIZE, random_network
from tests.tiers import ALIKE, tiered

Array = npt.NDArray[Any]
# In float32 the outputs of stereo.onnx differ by rounding alone, of which lumping makes less.
MODELS = sorted(path for path in (Path(__file__).parents[2] / "models").rglob("*.onnx") if path.stem != "stereo")
SATURATED = 2**10
"""Outputs that vary by less than this share of themselves have 13 bits left, of which rounding takes some."""
SETTING = ExecutionConfig([CPU], threads=1)
one, discrete = Partition.one, Partition.discrete


@pytest.fixture
def every_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes of positions are kept although small networks do not save what their nodes cost."""
    kept = functools.partial(Target, node_cost=0)
    monkeypatch.setattr(kept, "evaluated", Target.evaluated, raising=False)
    monkeypatch.setattr(executors, "Target", kept)


def outputs(model: ir.Model | onnx.ModelProto, images: Array, constants: tuple[float, ...], lump: bool) -> list[Array]:
    """Return the expanded outputs of the lumped graph, or those of the plain one."""
    decided = plan(load_model(model), len(images), GraphOptions())
    name = decided.specs[0].name
    if not lump:
        return [one.output for one in PlainExecutor(decided, SETTING).run(constants, {name: images}, None)]
    feeds = Feeds.of({name: images}, {name: 0})
    lowered = lower(decided, SETTING, len(constants), feeds=feeds)
    found = LumpedExecutor(lowered, decided, SETTING).run(constants, {name: images}, None)
    (value,) = lowered.outputs.values()
    if all(part.is_one or part.is_discrete for part in value.axes):
        whole = np.prod(value.shape) // max(1, found[0].output.size)
        return [np.repeat(one.output, whole) for one in found]
    return [one.output for one in found]


# Where partitions come from


@examples(30)
@given(data=st.data())
def test_equal_positions_are_those_of_all_samples(data: st.DataObject) -> None:
    shape = [data.draw(st.integers(1, 4)) for _ in range(data.draw(st.integers(1, 4)))]
    samples = data.draw(st.one_of(st.none(), st.integers(0, len(shape) - 1)))
    array = np.random.default_rng(data.draw(st.integers(0, 999))).integers(0, 2, shape).astype(np.float32)
    for axis in range(len(shape)):
        if data.draw(st.booleans()):
            array = np.repeat(np.take(array, [0], axis), shape[axis], axis)
    found = equal_positions(array, samples)
    for axis, part in enumerate(of_array(array)):
        assert found[axis] == (discrete(shape[axis]) if axis == samples else part)


def test_grey_images_are_one_pixel_in_memory_and_in_partition() -> None:
    ramp = grey_ramp((256, 3, 4096, 4096), 0)  # 51 GB, were they written down
    parts = equal_positions(ramp, 0)
    assert [part.count for part in parts] == [256, 1, 1, 1]
    moved = perturb(ramp, 1)
    assert moved.shape == ramp.shape
    assert [part.count for part in equal_positions(moved, 0)] == [256, 1, 1, 1]


def test_one_pixel_that_differs_in_the_last_sample_tells_its_row_and_column_apart() -> None:
    images = np.ones((9, 3, 5, 5), np.float32)
    images[8, 1, 2, 3] = 2
    found = equal_positions(images, 0)
    assert found[1:] == (Partition.of([0, 1, 0]), Partition.of([0, 0, 1, 0, 0]), Partition.of([0, 0, 0, 1, 0]))


# What windows make of them


def image(side: int) -> Operand:
    """Return two grey images that a weight has touched."""
    array = np.asarray([0.5, -1.25], np.float32).reshape(2, 1, 1, 1)
    return Operand(array, (discrete(2), one(3), one(side), one(side)), weighted=True)


def test_a_padded_window_sees_a_border_on_both_sides() -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    lowered = check(node, {"x": image(32), "w": weight((8, 3, 3, 3), [0.5])})
    assert lowered.values[0].counts == (2, 1, 2, 2)
    assert lowered.values[0].axes[2] == Partition.of([0, *[1] * 30, 0])
    assert all(made.op_type != "Conv" for made in lowered.graph.nodes)


def test_a_window_without_padding_sees_no_border_and_is_a_number() -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], strides=[4, 4])
    lowered = check(node, {"x": image(32), "w": weight((8, 3, 4, 4), [0.5])})
    assert lowered.values[0].counts == (2, 1, 1, 1)
    assert lowered.values[0].shape == (2, 8, 8, 8)
    assert all(made.op_type not in ("Conv", "MatMul", "Expand") for made in lowered.graph.nodes)


@pytest.mark.parametrize("op_type", ["MaxPool", "AveragePool", "LpPool"])
def test_poolings_leave_classes(op_type: str) -> None:
    part = Partition.of([0, 1, *[2] * 28, 1, 0])
    array = np.random.default_rng(0).random((2, 1, 3, 3), np.float32)
    x = Operand(array, (discrete(2), one(4), part, part))
    node = onnx.helper.make_node(op_type, ["x"], ["y"], kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    lowered = check(node, {"x": x})
    assert max(lowered.values[0].counts[2:]) <= 4


def test_classes_that_save_nothing_are_given_up() -> None:
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    lowered = check(node, {"x": image(8), "w": weight((8, 3, 3, 3), [0.5])}, target=Target(node_cost=2**20))
    assert lowered.values[0].counts == (2, 1, 8, 8)


# Whole networks


KINDS = st.sampled_from(["grey", "rows", "columns", "mirrored", "any"])


@examples(8)
@given(seed=st.integers(0, 2**20), kind=KINDS)
def test_random_networks_give_the_same_outputs_with_merged_positions(seed: int, kind: str) -> None:
    assert_same_with_merged_positions(seed, kind)


@pytest.mark.exhaustive
@examples(50)
@given(seed=st.integers(0, 2**20), kind=KINDS)
def test_many_random_networks_give_the_same_outputs_with_merged_positions(seed: int, kind: str) -> None:
    assert_same_with_merged_positions(seed, kind)


def assert_same_with_merged_positions(seed: int, kind: str) -> None:
    model = random_network(seed)
    rng = np.random.default_rng(seed)
    shape = {"grey": (6, 3, 1, 1), "rows": (6, 3, 1, SIZE), "columns": (6, 3, SIZE, 1)}.get(kind, (6, 3, SIZE, SIZE))
    images = np.broadcast_to(rng.standard_normal(shape, np.float32), (6, 3, SIZE, SIZE))
    if kind == "mirrored":
        images = images + images[..., ::-1]
    weights = (0.05, 0.4)
    patch = pytest.MonkeyPatch()
    patch.setattr(executors, "Target", functools.partial(Target, node_cost=0))
    try:
        decided = plan(load_model(model), len(images), GraphOptions())
        proven = lower(decided, SETTING, 1, feeds=Feeds.of({"input": images}, {"input": 0})).cut_off
        assume(proven is None)  # of an exact 0 the plain graph's normalisations make rounding
        ours, theirs = (outputs(model, images, weights, lump) for lump in (True, False))
        assume(sum(amplification(one) for one in theirs) < SATURATED)
        nudges = [np.float32(1) + np.float32(1e-6) * rng.standard_normal((6, 1, 1, 1), np.float32) for _ in range(3)]
        moved = [outputs(model, images * nudge, weights, False) for nudge in nudges]
        for index, (some, others) in enumerate(zip(ours, theirs, strict=True)):
            rounding = max(float(np.abs(np.sort(one[index]) - np.sort(others)).max()) for one in moved)
            # Moving the input shows no rounding that a normalisation takes away again: float64 shows it.
            true = np.sort(plain_double(decided, weights[index], {"input": images}))
            off = float(np.abs(np.sort(others) - true).max())
            np.testing.assert_allclose(np.sort(some), true, rtol=1e-3, atol=1e-5 + 30 * rounding + off)
    finally:
        patch.undo()


@pytest.mark.parametrize("arithmetic", ["float32", "auto"])
@pytest.mark.parametrize("path", tiered(MODELS, exhaustive=ALIKE, name=lambda path: path.stem))
def test_models_have_the_same_score_with_every_class_kept(
    path: Path, arithmetic: str, every_class: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"weights": (1e-3, 0.1), "batch": 16, "arithmetic": arithmetic}
    merged = epsinas_onnx.score(path, **options)
    monkeypatch.setattr(Feeds, "parts", lambda *_: {})
    apart = epsinas_onnx.score(path, **options)
    assert merged.status == apart.status
    assert merged.score == (None if apart.score is None else pytest.approx(apart.score, rel=1e-3, abs=1e-5))


def test_an_output_of_positions_counts_each_class_as_often_as_it_occurs(every_class: None) -> None:
    graph = (
        "(float[N,3,8,8] x) => (float[N,2,8,8] y) { a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (x, A)"
        " y = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a, B) }"
    )
    proto = build(graph, A=(4, 3, 3, 3), B=(2, 4, 3, 3))
    images = grey_ramp((5, 3, 8, 8), 0)
    lumped, plain = (outputs(proto, images, (0.5, 2.0), lump) for lump in (True, False))
    for some, others in zip(lumped, plain, strict=True):
        times = others.size // some.size
        assert times > 1
        np.testing.assert_allclose(np.sort(np.repeat(some, times)), np.sort(others), rtol=1e-5)


def test_a_token_that_is_repeated_is_one_position(every_class: None) -> None:
    graph = (
        "(int64[N,6] ids) => (float[N,6,4] y) { e = Gather (table, ids)  q = MatMul(e, Q)"
        " t = Transpose <perm = [0, 2, 1]> (q)  s = MatMul(e, t)  p = Softmax <axis = -1> (s)"
        " v = MatMul(p, e)  y = MatMul(v, V) }"
    )
    proto = build(graph, table=(50, 4), Q=(4, 4), V=(4, 4))
    ids = np.repeat(np.arange(5)[:, None], 6, axis=1)
    lumped, plain = (outputs(proto, ids, (0.5, 2.0), lump) for lump in (True, False))
    for some, others in zip(lumped, plain, strict=True):
        np.testing.assert_allclose(np.sort(some), np.sort(others), rtol=1e-4)


def test_instance_statistics_over_one_class_of_positions_prove_the_output_constant() -> None:
    graph = (
        "(float[N,3,8,8] x) => (float[N,2] y) { n = InstanceNormalization (x, S, B)  c = Conv (n, A)"
        " p = GlobalAveragePool (c)  y = Flatten (p) }"
    )
    proto = build(graph, S=(3,), B=(3,), A=(2, 3, 3, 3))
    assert epsinas_onnx.score(proto, batch=4).status is epsinas_onnx.Status.CONSTANT
    assert epsinas_onnx.score(proto, batch=4, inputs="normal").status is not epsinas_onnx.Status.CONSTANT


def test_large_matrices_of_windows_are_not_remembered() -> None:
    small, large = Partition.discrete(40), Partition.discrete(400)
    assert seen(small, Window(3, 1, 1, 1, 40)) is seen(small, Window(3, 1, 1, 1, 40))
    first, again = (seen(large, Window(3, 1, 1, 1, 400)) for _ in range(2))
    assert first is not again
    assert np.array_equal(first.rows, again.rows)
