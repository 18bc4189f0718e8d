"""Chains of small nodes in one compiled program, against the same nodes one by one; without numba, uncompiled."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epsinas_exporters.spaces import get
from epsinas_onnx.evaluate_lumped.fused import chain as chains
from epsinas_onnx.evaluate_lumped.fused import compiled, find
from epsinas_onnx.evaluate_lumped.fused import machine as program
from epsinas_onnx.evaluate_lumped.fused.installed import is_installed
from epsinas_onnx.evaluate_lumped.fused.matrices import Matrices, Rows
from epsinas_onnx.evaluate_lumped.fused.recognise import Code
from epsinas_onnx.evaluate_lumped.program import Program
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.value import Array, Tensor
from epsinas_onnx.scoring.options import ScoreOptions
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import score_or_error

SAMPLES = 5
KEPT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Runs:
    """What became of each chain that was to run: True, False where it could not begin, None where it had to stop."""

    def __init__(self) -> None:
        self.found: list[bool | None] = []


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """Have chains run, by the functions themselves where nothing compiles them."""
    monkeypatch.setattr(find, "is_installed", lambda: True)
    for module in (find, chains):
        monkeypatch.setattr(module, "machine", lambda: program)
    seen = Runs()
    for name in ("run", "run_plain"):
        real: Callable[..., bool | None] = getattr(chains.Chain, name)

        def spy(*args: Any, real: Callable[..., bool | None] = real) -> bool | None:
            seen.found.append(real(*args))
            return seen.found[-1]

        monkeypatch.setattr(chains.Chain, name, spy)
    return seen


class Net:
    """A lowered graph that is made at random: rows of an image of one channel, in float."""

    def __init__(self, draw: st.DrawFn, steps: int) -> None:
        self.draw = draw
        self.graph = LoweredGraph({"": 20})
        self.numbers: dict[Tensor, tuple[float, int]] = {}
        self.input = self.graph.input(
            "x", (SAMPLES, 1, draw(st.integers(1, 4)), draw(st.integers(1, 4))), ir.DataType.FLOAT
        )
        self.values = [self.input]
        for _ in range(steps):
            self.values.append(self.step())
        self.outputs = [self.values[-1], *draw(st.lists(st.sampled_from(self.values[1:]), max_size=2))]

    def step(self) -> Tensor:
        """Append a node to one of the last values."""
        draw, graph = self.draw, self.graph
        x = draw(st.sampled_from(self.values[-3:]))
        image = len(x.dims) == 4
        of_images = ["along", "gather", "gather", "mean", "total", "reshape", "largest", "concat", "spread"]
        kinds = ["scale", "relu", "add", "sub", "standardise", *(of_images * image)]
        kind = draw(st.sampled_from(kinds))
        if kind == "concat" and math.prod(x.dims[1:]) > 12:
            kind = "relu"
        if kind == "scale":
            number = graph.derive(lambda weight: weight, (), ir.DataType.FLOAT)
            self.numbers[number] = draw(st.floats(0.01, 100)), draw(st.sampled_from([0, 0, 3, -70, 400, -5000, 2**44]))
            return graph.op("Mul", [x, number], x.shape)
        if kind == "relu":
            return graph.op("Relu", [x], x.shape)
        if kind in ("add", "sub"):
            alike = [value for value in self.values if value.shape == x.shape]
            return graph.op(kind.capitalize(), [x, draw(st.sampled_from(alike))], x.shape)
        if kind == "standardise":
            return self.standardise(x)
        if kind == "reshape":
            shape = (SAMPLES, 1, math.prod(x.dims[1:]), 1)
            return graph.op("Reshape", [x, graph.constant(np.asarray(shape))], shape)
        if kind == "along":
            sizes = draw(st.integers(1, 4)), draw(st.integers(1, 4))
            entries = st.sampled_from([0.0, 0.0, 1.0, 2.0, 0.5])
            given = [np.asarray(draw(st.lists(entries, min_size=n * m, max_size=n * m))).reshape(n, m)
                     for n, m in zip(sizes, x.dims[2:], strict=True)]  # fmt: skip
            shape = (*x.dims[:2], *sizes)
            return graph.op("Along", [x, *map(graph.constant, given)], shape, domain="epsinas", axes=(2, 3))
        if kind == "gather":
            axis = draw(st.sampled_from([2, 3]))
            indices = draw(st.lists(st.integers(-x.dims[axis], x.dims[axis] - 1), min_size=1, max_size=5))
            shape = tuple(len(indices) if place == axis else size for place, size in enumerate(x.dims))
            return graph.op("Gather", [x, graph.constant(np.asarray(indices))], shape, axis=axis)
        if kind == "largest":
            return self.largest(x)
        if kind == "concat":
            axis = draw(st.sampled_from([1, 2, 3]))
            alike = [v for v in self.values if len(v.dims) == 4
                     and all(mine == other for place, (mine, other) in enumerate(zip(v.dims, x.dims, strict=True))
                             if place != axis)]  # fmt: skip
            parts = [x, *draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))]
            whole = sum(part.dims[axis] for part in parts)
            shape = tuple(whole if place == axis else size for place, size in enumerate(x.dims))
            return graph.op("Concat", parts, shape, axis=axis)
        if kind == "spread":
            other = draw(st.sampled_from([value for value in self.values if len(value.dims) == 4]))
            if any(1 not in pair and len(set(pair)) > 1 for pair in zip(x.dims, other.dims, strict=True)):
                return graph.op("Relu", [x], x.shape)
            shape = tuple(map(max, x.dims, other.dims))
            return graph.op(draw(st.sampled_from(["Add", "Sub"])), [x, other], shape)
        axes = draw(st.sampled_from([(2,), (3,), (2, 3)]))
        shape = tuple(1 if place in axes else size for place, size in enumerate(x.dims))
        return graph.op("ReduceMean" if kind == "mean" else "ReduceSum", [x, graph.constant(np.asarray(axes))], shape)

    def largest(self, x: Tensor) -> Tensor:
        """Append a MaxPool whose windows all hold something of the image."""
        draw = self.draw
        size = [draw(st.integers(1, min(3, side))) for side in x.dims[2:]]
        pads = [draw(st.integers(0, (one - 1) // 2)) for one in size]
        strides = [draw(st.integers(1, 2)) for _ in size]
        out = [(side + 2 * pad - one) // stride + 1
               for side, one, pad, stride in zip(x.dims[2:], size, pads, strides, strict=True)]  # fmt: skip
        return self.graph.op(
            "MaxPool", [x], (*x.dims[:2], *out), kernel_shape=size, pads=[*pads, *pads], strides=strides
        )

    def standardise(self, x: Tensor) -> Tensor:
        """Append a normalisation over everything, with weights for positions or without."""
        draw = self.draw
        weights = None
        if draw(st.booleans()):
            shape = (1, *(size if draw(st.booleans()) else 1 for size in x.dims[1:]))
            numbers = np.asarray(
                draw(st.lists(st.integers(1, 4), min_size=math.prod(shape), max_size=math.prod(shape)))
            )
            weights = self.graph.constant((numbers / numbers.sum()).reshape(shape))
        epsilon = draw(st.sampled_from([0.0, 1e-5, 1e-12]))
        one = (1,) * len(x.dims)
        outputs = [(x.shape, x.dtype), (one, x.dtype), (one, x.dtype)]
        return self.graph.ops(
            "Standardise", [x, weights], outputs, "epsinas", {"axes": tuple(range(len(x.dims))), "epsilon": epsilon}
        )[0]  # fmt: skip

    def program(self, exact: bool) -> Program:
        """Return what runs it, made anew."""
        self.graph.chains.clear()
        for node in self.graph.nodes:
            assert node.kind is None
        return Program(self.graph, list(dict.fromkeys(self.outputs)), exact)

    def run(self, value: Any, exact: bool = True) -> list[Any]:
        """Return the outputs for an input."""
        numbers = iter(self.numbers[tensor] for tensor in self.graph.derived if tensor in self.needed())

        def derived(make: Callable[[Array], Array]) -> Any:
            factor, power = next(numbers)
            if not exact:
                return np.float32(factor * 2.0 ** max(-40, min(40, power)))
            return Value((), Scaled(np.asarray(factor), 1.0, power), None)

        made = self.program(exact)
        return made.run(derived, made.begin({"x": value}))

    def needed(self) -> set[Tensor | None]:
        """Return what the nodes that are alive read."""
        return {tensor for node in self.graph.live_nodes(self.outputs) for tensor in node.inputs}


@st.composite
def nets(draw: st.DrawFn) -> Net:
    """Return a graph that holds a chain, as one that is too short is none."""
    return Net(draw, draw(st.integers(16, 30)))


@st.composite
def deviations(draw: st.DrawFn, shape: tuple[int, ...]) -> Value:
    """Return a value without a base, at any scale."""
    count = math.prod(shape)
    entries = np.asarray(draw(st.lists(st.floats(-4, 4, width=16), min_size=count, max_size=count)))
    power = draw(st.sampled_from([0, 0, 90, -90, 300, -300]))
    exponent = draw(st.sampled_from([0, 7, -5000, 2**45]))
    return Value(shape, None, Scaled(np.ldexp(entries.reshape(shape), power), 0.75, exponent))


def agree(first: Value, second: Value) -> bool:
    """Whether two values are the same up to rounding, in units of the largest entry."""
    assert first.shape == second.shape
    parts = [value.whole() for value in (first, second)]
    if any(part is None or part.peak == 0 for part in parts):
        return all(part is None or part.peak == 0 for part in parts)
    one, other = parts
    assert one is not None
    assert other is not None
    if not np.isfinite(one.array).all() or not np.isfinite(other.array).all():
        return bool(np.isfinite(one.array).all() == np.isfinite(other.array).all())
    unit = one if one.log2 >= other.log2 else other
    units = [np.broadcast_to(part.in_units_of(unit), first.shape) for part in (one, other)]
    return bool(np.abs(units[0] - units[1]).max() <= 1e-8 * unit.peak)


def one_by_one(net: Net, value: Any, monkeypatch: pytest.MonkeyPatch, exact: bool = True) -> list[Any]:
    """Return the same by NumPy."""
    with monkeypatch.context() as patch:
        patch.setattr(find, "is_installed", lambda: False)
        return net.run(value, exact)


@KEPT
@given(data=st.data())
def test_a_chain_gives_what_its_nodes_give(data: st.DataObject, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = data.draw(nets())
    value = data.draw(deviations(net.input.dims))
    for mine, theirs in zip(net.run(value), one_by_one(net, value, monkeypatch), strict=True):
        assert agree(mine, theirs)


def plain_chain(
    first_steps: Sequence[str] = (), steps: Sequence[str] = ("Relu", "Standardise") * 8, epsilon: float = 1e-5
) -> Net:
    """Return a graph of some nodes, and of others that make a chain."""
    net = object.__new__(Net)
    net.graph, net.numbers = LoweredGraph({"": 20}), {}
    graph = net.graph
    net.input = x = before = graph.input("x", (SAMPLES, 1, 2, 2), ir.DataType.FLOAT)
    mean = graph.constant(np.full((2, 2), 0.5))
    for kind in (*first_steps, *steps):
        last = x
        if kind == "Standardise":
            outputs = [(x.shape, x.dtype), *[((1,) * 4, x.dtype)] * 2]
            x = graph.ops(kind, [x], outputs, "epsinas", {"axes": (0, 1, 2, 3), "epsilon": epsilon})[0]
        elif kind == "Mul":
            number = graph.derive(lambda weight: weight, (), x.dtype)
            net.numbers[number] = 0.375, 0
            x = graph.op(kind, [x, number], x.shape)
        elif kind == "Along":
            x = graph.op(kind, [x, mean, mean], x.shape, domain="epsinas", axes=(2, 3))
        elif kind == "Gather":
            x = graph.op(kind, [x, graph.constant(np.asarray([1, 0]))], x.shape, axis=2)
        elif kind in ("Add", "Sub"):
            x = graph.op(kind, [x, before], x.shape)
        else:
            x = graph.op(kind, [x], x.shape)
        before = last
    net.outputs = [x]
    return net


def image(seed: int, *, same: bool = False) -> Array:
    """Return an image of five samples."""
    array = np.random.default_rng(seed).normal(size=(SAMPLES, 1, 2, 2))
    return np.broadcast_to(array[:1], array.shape).copy() if same else array


def test_a_chain_begins_where_a_normalisation_has_left_no_base(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = plain_chain(["Relu", "Standardise"])
    value = Value((SAMPLES, 1, 2, 2), Scaled(np.full((1, 1, 2, 2), 3e4)), Scaled(image(2)))
    first, *_ = net.graph.nodes
    net.outputs.append(first.outputs[0])  # which is made before the chain can begin
    made = net.run(value)
    assert runs.found == [False, True]
    for mine, theirs in zip(made, one_by_one(net, value, monkeypatch), strict=True):
        assert agree(mine, theirs)


@KEPT
@given(data=st.data())
def test_a_base_no_larger_than_what_samples_have_is_added_to_it(
    data: st.DataObject, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = data.draw(nets())
    deviation, base = data.draw(deviations(net.input.dims)), data.draw(deviations(net.input.dims))
    assert deviation.deviation is not None
    assert base.deviation is not None
    value = Value(net.input.dims, deviation.deviation.become(base.deviation.array[:1]), deviation.deviation)
    for mine, theirs in zip(net.run(value), one_by_one(net, value, monkeypatch), strict=True):
        assert agree(mine, theirs)


def test_what_a_chain_gives_has_the_base_of_the_first_sample(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = plain_chain(steps=["Along", "Relu"] * 8)
    array = image(6)
    array -= array[:1]
    value = Value(array.shape, Scaled(np.full((1, 1, 2, 2), 3.0)), Scaled(array))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert runs.found == [True]
    assert agree(mine, theirs)
    for one, other in ((mine.base, theirs.base), (mine.deviation, theirs.deviation)):
        assert agree(Value(one.array.shape, one, None), Value(other.array.shape, other, None))


@pytest.mark.parametrize("share", [1e-4, 1e-12])
def test_a_deviation_below_its_base_is_not_added_to_it(
    share: float, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = plain_chain(steps=["Along", "Relu"] * 8)
    value = Value((SAMPLES, 1, 2, 2), Scaled(np.full((1, 1, 2, 2), 3.0)), Scaled(share * image(7)))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert runs.found == [False]
    assert agree(Value(mine.shape, mine.deviation, None), Value(mine.shape, theirs.deviation, None))


@pytest.mark.parametrize(("far", "begins"), [(1e2, True), (1e8, False)])
def test_what_all_samples_have_is_not_added_to_what_is_far_below_it(
    far: float, begins: bool, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be taken away again, by a normalisation over positions that varies itself: nothing would tell by then."""
    net = plain_chain(steps=["Along", "Relu"] * 8)
    base, deviation = np.zeros((1, 1, 2, 2)), image(7) - image(7)[:1]
    base[0, 0, 0, 0], deviation[:, :, 0, 0] = far, 0.0
    value = Value(deviation.shape, Scaled(base), Scaled(deviation))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert runs.found[0] is begins
    assert agree(Value(mine.shape, mine.deviation, None), Value(mine.shape, theirs.deviation, None))


def test_digits_lost_in_a_chain_make_its_nodes_run_one_by_one(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """What samples have in common doubles from node to node, while what they differ in cancels."""
    net = plain_chain(steps=["Along"] * 16)
    array = np.zeros((SAMPLES, 1, 2, 2))
    array[1:, :, 0, 0], array[1:, :, 1, 1] = 1.0, -1.0 + 1e-6 * np.arange(1, SAMPLES)[:, None]
    value = Value(array.shape, Scaled(np.ones((1, 1, 2, 2))), Scaled(array))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert None in runs.found
    assert agree(Value(mine.shape, mine.deviation, None), Value(mine.shape, theirs.deviation, None))


def test_what_is_common_is_not_taken_away_after_it_was_added(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A normalisation would enlarge what rounding left of the samples."""
    steps = ["Along", "Relu", "Along", "Relu", "Standardise", *["Relu", "Along"] * 6]
    net = plain_chain(steps=steps)
    array = np.zeros((SAMPLES, 1, 2, 2))
    array[1:, :, 0, 0], array[1:, :, 1, 1] = 1.0, -1.0 + 1e-6 * np.arange(1, SAMPLES)[:, None]
    value = Value(array.shape, Scaled(np.full((1, 1, 2, 2), 4.0)), Scaled(array))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert runs.found[0] is None
    assert agree(Value(mine.shape, None, mine.deviation), Value(mine.shape, None, theirs.deviation))


def test_a_base_stays_where_something_is_subtracted(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = plain_chain(steps=["Relu", "Along", "Sub"] * 6)
    value = Value((SAMPLES, 1, 2, 2), Scaled(np.ones((1, 1, 2, 2))), Scaled(image(8)))
    (mine,), (theirs,) = net.run(value), one_by_one(net, value, monkeypatch)
    assert True not in runs.found
    assert agree(mine, theirs)


@pytest.mark.parametrize(
    "array", [image(3, same=True) * 0, np.where(image(4) > 0, np.inf, 1.0)], ids=["all alike", "infinite"]
)
def test_where_it_has_to_stop_nodes_run_one_by_one(array: Array, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = plain_chain()
    value = Value(array.shape, None, Scaled(array))
    made = net.run(value)
    assert runs.found[-1] is None
    assert agree(made[0], one_by_one(net, value, monkeypatch)[0])


@pytest.mark.parametrize("epsilon", [1e-5, 0.0])
@pytest.mark.parametrize("size", [1.0, 1e-15, 1e-19, 1e-21, 1e-24, 1e-40])
def test_in_float32_it_gives_the_same_down_to_where_numbers_end(
    size: float, epsilon: float, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = ["Along", "Mul", "Standardise", "Relu", "Gather", "Add", "Mul", "Add", "Standardise"] * 3
    net = plain_chain(steps=steps, epsilon=epsilon)
    array = (image(6) * size).astype(np.float32)
    (mine,), (theirs,) = net.run(array, False), one_by_one(net, array, monkeypatch, False)
    assert True in runs.found
    assert mine.dtype == theirs.dtype == np.float32
    assert np.isfinite(mine).all() == np.isfinite(theirs).all()
    if not np.isfinite(theirs).all():
        return
    assert mine.any() == theirs.any()
    np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4 * np.abs(theirs).max())


def test_an_output_that_is_an_input_stays_what_it_is(runs: Runs) -> None:
    net = plain_chain()
    net.outputs.append(net.input)
    value = Value((SAMPLES, 1, 2, 2), None, Scaled(image(7)))
    assert net.run(value)[1] is value
    assert runs.found == [True]


def test_what_is_alike_is_centred_to_nothing_in_float32(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    net = plain_chain(steps=["Gather", "Standardise"] * 8)
    array = np.full((SAMPLES, 1, 2, 2), 0.1, np.float32)
    (mine,), (theirs,) = net.run(array, False), one_by_one(net, array, monkeypatch, False)
    assert True in runs.found
    assert mine.any() == theirs.any()


@pytest.mark.parametrize("kind", ["Standardise", "ReduceMean", "Gather", "Along", "MaxPool", "Concat"])
def test_what_is_large_is_laid_out_by_nobody(kind: str, runs: Runs) -> None:
    """Its memory is asked for by who runs it, who refuses what is too large."""
    graph = LoweredGraph({"": 20})
    side = 200_000
    x = graph.input("x", (2, 1, side, side), ir.DataType.FLOAT)
    for _ in range(16):
        if kind == "Standardise":
            attributes = {"axes": (0, 1, 2, 3), "epsilon": 0.0}
            x = graph.ops(kind, [x], [(x.shape, x.dtype)] + [((1,) * 4, x.dtype)] * 2, "epsinas", attributes)[0]
        elif kind == "ReduceMean":
            x = graph.op(kind, [x, graph.constant(np.asarray([1]))], x.shape)
        elif kind == "Gather":
            x = graph.op(kind, [x, graph.constant(np.arange(side))], x.shape, axis=2)
        elif kind == "MaxPool":
            x = graph.op(kind, [x], x.shape, kernel_shape=[1, 1])
        elif kind == "Concat":
            x = graph.op(kind, [x, x], (2, 1, 2 * x.dims[2], side), axis=2)
        else:
            x = graph.op(kind, [x, graph.constant(np.ones((1, 1)))], x.shape, domain="epsinas", axes=(1,))
    assert find.find_chains(graph.nodes, [x], (), Program(graph, [x], True)._call) == []


def test_values_of_different_samples_are_none_of_a_chain(runs: Runs) -> None:
    net = plain_chain()
    value = Value((SAMPLES, 1, 2, 2), None, Scaled(image(5)[:1]))
    net.run(value)
    assert True not in runs.found


@given(st.lists(st.floats(-8, 8, width=32), min_size=8, max_size=8), st.integers(-900, 900), st.booleans())
@settings(deadline=None)
def test_a_sum_is_the_same_with_its_terms_the_other_way_round(numbers: list[float], apart: int, negate: bool) -> None:
    made = [_summed(numbers, apart, swap, negate) for swap in (False, True)]
    wanted = [
        Fraction(a) + (-1 if negate else 1) * Fraction(b) * Fraction(2) ** apart
        for a, b in zip(numbers[:4], numbers[4:], strict=True)
    ]
    if made[0] is None or made[1] is None:
        assert apart < -300 or apart > 300
        return
    largest = max(
        *(abs(Fraction(a)) for a in numbers[:4]), *(abs(Fraction(b)) * Fraction(2) ** apart for b in numbers[4:])
    )
    for one, other, want in zip(made[0], made[1], wanted, strict=True):
        assert one == (-other if negate else other)
        assert abs(one - want) <= largest / 2**50


def _summed(numbers: list[float], apart: int, swap: bool, negate: bool) -> list[Fraction] | None:
    """Return a + b * 2**apart, or b * 2**apart + a, as the compiled program has it; None where it stops."""
    ends = [np.asarray(numbers[:4]), np.asarray(numbers[4:])]
    powers = [0, apart]
    if swap:
        ends, powers = ends[::-1], powers[::-1]
    memory = np.concatenate([*ends, np.zeros(4)])
    row = np.zeros((1, program.COLUMNS), np.int64)
    row[0, : program.FLAG + 1] = [Code.ADD, 2, 0, 1, 4, 0, 8, 0, 4, -1, negate]
    mantissas, exponents, ages = np.full(3, 0.5), np.array([*powers, 0]), np.full(3, 8)
    empty, none = np.zeros(0), np.zeros(0, np.int64)
    stopped = program.run_exactly(
        row, 0, 1, memory, mantissas, exponents, ages, empty, none, none, none, empty, np.zeros(1), math.inf
    )  # fmt: skip
    if stopped != program.DONE:
        return None
    scale = Fraction(float(mantissas[2])) * 2 * Fraction(2) ** int(exponents[2])
    return [Fraction(float(entry)) * scale for entry in memory[8:]]


@pytest.mark.skipif(not is_installed(), reason="the extra fast is not installed, and uncompiled it takes minutes")
@pytest.mark.parametrize(
    "arch",
    [
        "|nor_conv_3x3~0|+|nor_conv_1x1~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|",
        "|avg_pool_3x3~0|+|nor_conv_3x3~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_1x1~2|",
        "|none~0|+|nor_conv_3x3~0|none~1|+|nor_conv_1x1~0|none~1|skip_connect~2|",
    ],
)
def test_networks_have_the_same_score_status_and_order(arch: str, runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one's sum reads what a multiplication in float32 must not have written over."""
    model = get("nasbench201").network(arch)
    options = ScoreOptions(weights=(1e-7, 1.0), inputs="grey", batch=8)
    mine = score_or_error(model, options)
    assert True in runs.found
    runs.found.clear()
    with monkeypatch.context() as patch:
        patch.setattr(find, "is_installed", lambda: False)
        theirs = score_or_error(model, options)
    assert not runs.found
    assert facts(mine) == facts(theirs)
    assert mine.score == pytest.approx(theirs.score, rel=1e-9)


def facts(result: Score) -> tuple[Any, ...]:
    """Return what is no number that rounds."""
    return result.status, result.float32_status, result.order, result.reason


def test_matrices_stay_where_they_are_while_others_come() -> None:
    kept = Matrices()
    none = np.zeros(0, np.int64)
    first = Rows(np.array([0, 2, 3]), np.array([1, 0, 1]), np.array([0.5, 2.0, 1.0]))
    weights = Rows(none, none, np.array([0.25, 0.75]))
    places = [kept.place(first), kept.place(weights)]
    for count in range(2, 60):
        kept.place(Rows(np.arange(count + 1), np.zeros(count, np.int64), np.full(count, float(count))))
    assert [kept.place(first), kept.place(weights)] == places
    begin, end = kept.starts[places[0]], kept.starts[places[0] + 2]
    assert kept.columns[begin:end].tolist() == [1, 0, 1]
    assert kept.entries[begin:end].tolist() == [0.5, 2.0, 1.0]
    assert kept.entries[places[1] : places[1] + 2].tolist() == [0.25, 0.75]


def test_without_numba_or_with_it_switched_off_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(compiled, "is_installed", lambda: False)
        assert compiled._made_ready.__wrapped__() == (None, "")
    numba = pytest.importorskip("numba", reason="the extra fast is not installed")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    assert compiled._made_ready.__wrapped__() == (None, "NUMBA_DISABLE_JIT is set")


def test_what_is_no_use_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("cannot cache\nfunction")

    pytest.importorskip("numba", reason="the extra fast is not installed")
    monkeypatch.setattr(program, "compile_all", broken)
    assert compiled._made_ready.__wrapped__() == (None, "RuntimeError: cannot cache function")


def test_what_is_compiled_runs() -> None:
    pytest.importorskip("numba", reason="the extra fast is not installed")
    assert compiled.machine() is program
    assert program.run_exactly.signatures
