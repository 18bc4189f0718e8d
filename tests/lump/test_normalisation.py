"""Normalisations equal their definition in double precision, whatever the partitions are; and what ends at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.graph.passes.constant_weights import NormStats
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import Target
from tests.lump.harness import (
    Array,
    Lowered,
    Operand,
    Reference,
    check,
    examples,
    known,
    lower,
    operands,
    partitions,
    plain,
    weight,
)

_CONSTANTS = (0.3, 1.5)
_EPSILONS = st.sampled_from([float(np.float32(epsilon)) for epsilon in (1e-5, 1e-3, 0.2)])
"""Attributes are float32."""

_RARELY = st.sampled_from([False, False, False, True])
_TYPES = st.sampled_from([np.float32, np.float32, np.float64])
_TOLERANCE = {np.float32: 2e-4, np.float64: 1e-9}
"""Of numbers about 1: an epsilon of 1e-5 enlarges float32 rounding by up to 300."""


def _standardised(x: Array, axes: Sequence[int], epsilon: float) -> Array:
    x = x.astype(np.float64)
    mean, variance = x.mean(tuple(axes), keepdims=True), x.var(tuple(axes), keepdims=True)
    return np.asarray((x - mean) / np.sqrt(variance + epsilon))


def _per_channel(values: Array, rank: int) -> Array:
    return values.astype(np.float64).reshape(-1, *(1,) * (rank - 2))


def _agrees(
    node: onnx.NodeProto, given: Mapping[str, Operand], reference: Reference, target: Target, opset: int
) -> Lowered:
    """Check a node against its definition, in the tolerance of its element type."""
    dtype = given["x"].array.dtype

    def rounded(whole: Mapping[str, Array]) -> Sequence[Array]:
        return [np.asarray(array, dtype) for array in reference(whole)]

    tolerance = _TOLERANCE[dtype.type]
    return check(node, given, opset=opset, rtol=tolerance, atol=tolerance, target=target, reference=rounded)


@st.composite
def targets(draw: st.DrawFn, norm_stats: NormStats = "batch") -> Target:
    """Draw what a graph is lowered for."""
    return Target(draw(st.integers(1, 2)), blocked=draw(st.booleans()), norm_stats=norm_stats)


@st.composite
def vectors(draw: st.DrawFn, shape: Sequence[int], constants: int, dtype: Any, zero: bool = False) -> Operand:
    """Draw a scale (a weight, stored, or computed) or, where `zero`, a shift (stored zeros, stored, or computed)."""
    kind = draw(st.sampled_from(["constant", "constant", "stored", "computed"]))
    if kind == "computed":
        return draw(operands(shape, constants=constants, dtype=dtype, factors=True))
    if kind == "stored":
        return known(draw(operands(shape)).whole(0), dtype)
    if zero:
        return known(np.zeros(shape), dtype)
    number = weight(shape, _CONSTANTS[:constants])
    return replace(number, array=number.array.astype(dtype))


@st.composite
def images(draw: st.DrawFn, constants: int, dtype: Any, *, rank: int = 2, channels: int | None = None) -> Operand:
    """Draw `[n, channels, *space]` of at least `rank` axes, now and then with one class of channels."""
    space = draw(st.lists(st.integers(1, 4), min_size=rank - 2, max_size=3))
    shape = [draw(st.integers(1, 4)), channels or draw(st.integers(1, 4)), *space]
    x = draw(operands(shape, constants=constants, dtype=dtype, factors=True, layouts=True))
    if draw(st.booleans()):
        parts = (x.parts[0], Partition.one(shape[1]), *x.parts[2:])
        x = draw(operands(shape, constants=constants, dtype=dtype, factors=True, layouts=True, parts=parts))
    return x


def _batch_normalises(
    data: st.DataObject, target: Target, given: dict[str, Operand], training: bool, epsilon: float
) -> Lowered:
    """Check a BatchNormalization of `x`, `scale` and `shift` against its definition, whatever the target asks for."""
    norm_stats, dtype = target.norm_stats, given["x"].array.dtype
    width = [given["x"].parts[1].size]
    given["mean"] = data.draw(operands(width, dtype=dtype))
    given["variance"] = data.draw(operands(width, low=0.1, dtype=dtype))

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x = whole["x"].astype(np.float64)
        scale, shift, mean, variance = (_per_channel(whole[name], x.ndim) for name in list(given)[1:])
        if norm_stats == "reset":
            mean, variance = np.zeros_like(mean), np.ones_like(variance)
        elif training or norm_stats == "batch":
            return [_standardised(x, [0, *range(2, x.ndim)], epsilon) * scale + shift]
        return [(x - mean) / np.sqrt(variance + epsilon) * scale + shift]

    attributes: dict[str, Any] = {"training_mode": 1} if training else {}
    node = onnx.helper.make_node("BatchNormalization", list(given), ["y"], epsilon=epsilon, **attributes)
    return _agrees(node, given, reference, target, opset=15)


@pytest.mark.parametrize("norm_stats", ["batch", "reset", "stored"])
@examples(30)
@given(data=st.data(), dtype=_TYPES, training=st.booleans(), epsilon=_EPSILONS)
def test_batch_normalisation(
    norm_stats: NormStats, data: st.DataObject, dtype: Any, training: bool, epsilon: float
) -> None:
    target = data.draw(targets(norm_stats))
    x = data.draw(images(target.constants, dtype))
    width = [x.parts[1].size]
    given = {
        "x": x,
        "scale": data.draw(vectors(width, target.constants, dtype)),
        "shift": data.draw(vectors(width, target.constants, dtype, zero=True)),
    }
    _batch_normalises(data, target, given, training, epsilon)


@examples(35)
@given(data=st.data(), dtype=_TYPES, constants=st.integers(1, 2), epsilon=_EPSILONS, shifted=_RARELY)
def test_batch_normalisation_of_identical_channels(
    data: st.DataObject, dtype: Any, constants: int, epsilon: float, shifted: bool
) -> None:
    """What becomes of a network of weights alone: an InstanceNormalization where channels, scales and shifts agree."""
    shape = data.draw(st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(3, 5)))
    parts = [data.draw(partitions(shape[0])), Partition.one(shape[1]), data.draw(partitions(shape[2]))]
    x = data.draw(operands(shape, constants=constants, parts=parts, dtype=dtype, factors=True, layouts=True))
    width = shape[1:2]
    one = [Partition.one(shape[1])] if data.draw(st.sampled_from([True, True, False])) else None
    given = {"x": x, "scale": data.draw(operands(width, constants=constants, dtype=dtype, parts=one, factors=True))}
    given["shift"] = known(np.full(width, float(shifted)), dtype)
    lowered = _batch_normalises(data, Target(constants), given, False, epsilon)
    joined = any(node.op_type == "InstanceNormalization" for node in lowered.graph.nodes)
    fits = given["scale"].parts[0].is_one and not shifted and x.factor > 0 and parts[0].uniform and parts[2].uniform
    assert joined == (fits and dtype is np.float32 and not (parts[0].is_one and parts[2].is_one))


@examples(30)
@given(data=st.data(), opset=st.sampled_from([7, 9, 15]))
def test_batch_normalisation_with_stored_statistics_is_the_operator(data: st.DataObject, opset: int) -> None:
    target = data.draw(targets("stored"))
    x = data.draw(images(target.constants, np.float32))
    width = [x.parts[1].size]
    given = {"x": x} | {name: data.draw(operands(width, low=0.1)) for name in ("scale", "shift", "mean", "variance")}
    node = onnx.helper.make_node("BatchNormalization", list(given), ["y"])
    check(node, given, opset=opset, target=target)


@examples(25)
@given(data=st.data(), dtype=_TYPES, target=targets(), epsilon=_EPSILONS)
def test_instance_normalisation(data: st.DataObject, dtype: Any, target: Target, epsilon: float) -> None:
    x = data.draw(images(target.constants, dtype, rank=3))
    width = [x.parts[1].size]
    given = {
        "x": x,
        "scale": data.draw(vectors(width, target.constants, dtype)),
        "shift": data.draw(vectors(width, target.constants, dtype, zero=True)),
    }

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x = whole["x"]
        scale, shift = (_per_channel(whole[name], x.ndim) for name in ("scale", "shift"))
        return [_standardised(x, range(2, x.ndim), epsilon) * scale + shift]

    node = onnx.helper.make_node("InstanceNormalization", list(given), ["y"], epsilon=epsilon)
    _agrees(node, given, reference, target, opset=18)
    if dtype is np.float32:
        check(node, given, target=target, rtol=2e-4, atol=2e-4)


@examples(30)
@given(data=st.data(), dtype=_TYPES, target=targets(), epsilon=_EPSILONS, opset=st.sampled_from([18, 21]))
def test_group_normalisation(data: st.DataObject, dtype: Any, target: Target, epsilon: float, opset: int) -> None:
    groups = data.draw(st.integers(1, 3))
    x = data.draw(images(target.constants, dtype, rank=3, channels=groups * data.draw(st.integers(1, 3))))
    whole_shape = x.whole(0).shape
    width = [groups if opset == 18 else whole_shape[1]]
    given = {
        "x": x,
        "scale": data.draw(vectors(width, target.constants, dtype)),
        "shift": data.draw(vectors(width, target.constants, dtype, zero=True)),
    }

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x = whole["x"]
        n, channels, *space = x.shape
        times = channels // groups if opset == 18 else 1
        scale, shift = (_per_channel(np.repeat(whole[name], times), x.ndim) for name in ("scale", "shift"))
        cut = x.reshape(n, groups, channels // groups, *space)
        return [_standardised(cut, range(2, cut.ndim), epsilon).reshape(x.shape) * scale + shift]

    node = onnx.helper.make_node("GroupNormalization", list(given), ["y"], epsilon=epsilon, num_groups=groups)
    _agrees(node, given, reference, target, opset=opset)


def _of_last_axes(data: st.DataObject, target: Target, dtype: Any) -> tuple[Operand, int, list[int]]:
    """Draw x, an axis, and the sizes from this axis on."""
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    x = data.draw(operands(shape, constants=target.constants, dtype=dtype, factors=True, layouts=True))
    axis = data.draw(st.integers(0, len(shape) - 1))
    return x, axis - data.draw(st.sampled_from([0, len(shape)])), shape[axis:]


@examples(30)
@given(data=st.data(), dtype=_TYPES, target=targets(), epsilon=_EPSILONS, shifted=st.booleans())
def test_layer_normalisation(data: st.DataObject, dtype: Any, target: Target, epsilon: float, shifted: bool) -> None:
    x, axis, inner = _of_last_axes(data, target, dtype)
    given = {"x": x, "scale": data.draw(vectors(inner, target.constants, dtype))}
    if shifted:
        given["shift"] = data.draw(vectors(inner, target.constants, dtype, zero=True))

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x = whole["x"]
        y = _standardised(x, range(axis % x.ndim, x.ndim), epsilon) * whole["scale"]
        return [y + whole["shift"] if shifted else y]

    node = onnx.helper.make_node("LayerNormalization", list(given), ["y"], axis=axis, epsilon=epsilon)
    _agrees(node, given, reference, target, opset=17)


@pytest.mark.parametrize(("op_type", "opset"), [("RMSNormalization", 23), ("SimplifiedLayerNormalization", 17)])
@examples(25)
@given(data=st.data(), dtype=_TYPES, target=targets(), epsilon=_EPSILONS)
def test_root_mean_square_normalisation(
    op_type: str, opset: int, data: st.DataObject, dtype: Any, target: Target, epsilon: float
) -> None:
    x, axis, inner = _of_last_axes(data, target, dtype)
    given = {"x": x, "scale": data.draw(vectors(inner, target.constants, dtype))}

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x = whole["x"].astype(np.float64)
        axes = tuple(range(axis % x.ndim, x.ndim))
        return [x / np.sqrt(np.square(x).mean(axes, keepdims=True) + epsilon) * whole["scale"]]

    node = onnx.helper.make_node(op_type, list(given), ["y"], axis=axis, epsilon=epsilon)
    lowered = _agrees(node, given, reference, target, opset)
    assert lowered.values[0].depends


@pytest.mark.parametrize(
    ("op_type", "opset"), [("LayerNormalization", 17), ("RMSNormalization", 23), ("SimplifiedLayerNormalization", 17)]
)
@examples(15)
@given(data=st.data(), target=targets())
def test_normalisations_of_last_axes_are_the_operator(
    op_type: str, opset: int, data: st.DataObject, target: Target
) -> None:
    x, axis, inner = _of_last_axes(data, target, np.float32)
    given = {"x": x, "scale": data.draw(vectors(inner, target.constants, np.float32))}
    node = onnx.helper.make_node(op_type, list(given), ["y"], axis=axis)
    check(node, given, opset=opset, target=target, rtol=1e-3, atol=1e-3)


@examples(25)
@given(data=st.data(), dtype=_TYPES, target=targets())
def test_mean_variance_normalisation(data: st.DataObject, dtype: Any, target: Target) -> None:
    shape = [data.draw(st.integers(2, 4)) for _ in range(4)]
    x = data.draw(operands(shape, constants=target.constants, dtype=dtype, factors=True, layouts=True))
    axes = data.draw(st.sampled_from([None, [0, 2, 3], [0, 1, 2, 3], [2, 3], [-1]]))
    attributes: dict[str, Any] = {"axes": axes} if axes else {}

    def reference(whole: Mapping[str, Array]) -> Sequence[Array]:
        x, over = whole["x"].astype(np.float64), tuple(axes or [0, 2, 3])
        return [(x - x.mean(over, keepdims=True)) / (x.std(over, keepdims=True) + 1e-9)]

    node = onnx.helper.make_node("MeanVarianceNormalization", ["x"], ["y"], **attributes)
    if not all(x.parts[axis].is_one for axis in axes or [0, 2, 3]):  # else the reference divides rounding by rounding
        _agrees(node, {"x": x}, reference, target, opset=13)


@examples(25)
@given(data=st.data(), dtype=_TYPES, target=targets(), p=st.sampled_from([None, 1, 2]), silent=st.booleans())
def test_lp_normalisation(data: st.DataObject, dtype: Any, target: Target, p: int | None, silent: bool) -> None:
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=4))
    x = data.draw(operands(shape, constants=target.constants, dtype=dtype, factors=True, layouts=True))
    if silent:
        x.array = np.maximum(x.array, 0)  # a rectifier leaves rows of zeros, whose norm is 0
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    attributes: dict[str, Any] = {"axis": axis} if p is None else {"axis": axis, "p": p}
    node = onnx.helper.make_node("LpNormalization", ["x"], ["y"], **attributes)
    check(node, {"x": x}, target=target, rtol=_TOLERANCE[dtype] / 10, atol=_TOLERANCE[dtype] / 10)


def _one_class(shape: Sequence[int], apart: Sequence[int] = ()) -> Operand:
    """Return an operand with one class along all axes but those in `apart`."""
    parts = tuple(Partition.discrete(size) if i in apart else Partition.one(size) for i, size in enumerate(shape))
    rng = np.random.default_rng(0)
    return Operand(rng.random(tuple(part.count for part in parts), np.float32), parts, factor=3.0)


_ENDING: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any], list[int]]] = {
    "LayerNormalization": ((2, 3, 4), (0, 1), {}, [4]),
    "LayerNormalization of everything": ((3, 4), (), {"axis": 0}, [3, 4]),
    "InstanceNormalization": ((2, 3, 4, 4), (0, 1), {}, [3]),
    "GroupNormalization": ((2, 6, 4), (0,), {"num_groups": 3}, [6]),
    "BatchNormalization": ((2, 3, 4, 4), (1,), {"training_mode": 1}, [3]),
    "BatchNormalization of one class": ((2, 3, 4, 4), (), {"training_mode": 1}, [3]),
}


@pytest.mark.parametrize("case", _ENDING)
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("blocked", [False, True])
def test_identical_values_leave_the_shift(case: str, shifted: bool, blocked: bool) -> None:
    op_type = case.partition(" ")[0]
    shape, apart, attributes, width = _ENDING[case]
    shift = np.arange(1, 1 + np.prod(width)).reshape(width) * shifted
    given = {"x": _one_class(shape, apart), "scale": weight(width, [0.5]), "shift": known(shift, np.float32)}
    if op_type == "BatchNormalization":
        given |= {"mean": known(np.zeros(width), np.float32), "variance": known(np.ones(width), np.float32)}
    node = onnx.helper.make_node(op_type, list(given), ["y"], **attributes)
    lowered = lower(node, given, 21, target=Target(1, blocked))
    (y,), ((array,),) = lowered.values, lowered.arrays
    spread = shift if op_type == "LayerNormalization" else shift.reshape(-1, *(1,) * (len(shape) - 2))
    np.testing.assert_array_equal(array, np.broadcast_to(spread, shape))
    assert (y.depends, y.zero) == (False, not shifted)
    assert y.cause is not None
    assert (y.cause.node.op_type, y.cause.zero) == (op_type, False)
    given["x"].array = np.full_like(given["x"].array, np.inf)
    assert [np.isnan(guard).any() for guard in lower(node, given, 21, target=Target(1, blocked)).guards] == [True]


@pytest.mark.parametrize(("attributes", "apart"), [({}, (1,)), ({"axes": [2, 3]}, (0, 1))])
def test_a_mean_variance_normalisation_of_identical_values_is_zero(
    attributes: dict[str, Any], apart: tuple[int, ...]
) -> None:
    x = _one_class((2, 3, 4, 4), apart)
    node = onnx.helper.make_node("MeanVarianceNormalization", ["x"], ["y"], **attributes)
    (y,) = lower(node, {"x": x}).values
    assert (y.depends, y.zero) == (False, True)
    assert y.cause is not None


@pytest.mark.parametrize("epsilon", [1e-5, 0.5])
def test_a_root_mean_square_of_identical_values_depends_on_them(epsilon: float) -> None:
    given = {"x": _one_class((2, 3, 4), apart=(0, 1)), "scale": weight((4,), [0.5])}
    node = onnx.helper.make_node("RMSNormalization", list(given), ["y"], epsilon=epsilon)
    lowered = check(node, given, opset=23)
    (y,) = lowered.values
    assert (y.depends, y.zero, y.counts) == (True, False, (2, 3, 1))


@examples(20)
@given(x=operands([3, 4], factors=True))
def test_statistics_that_are_read_come_from_the_operator(x: Operand) -> None:
    """The mean and deviation that a LayerNormalization also gives are those of the node as it is."""
    given = {"x": x, "scale": weight((4,), [0.5])}
    node = onnx.helper.make_node("LayerNormalization", list(given), ["y", "mean", "deviation"])
    whole = {name: operand.whole(0) for name, operand in given.items()}
    for got, wanted in zip(lower(node, given).arrays, plain(node, whole), strict=True):
        np.testing.assert_allclose(got[0], wanted, rtol=1e-3, atol=1e-3)
