"""Operators that move entries about equal ONNX Runtime's on expanded operands, whatever the partitions are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Lowered, Operand, check, examples, known, operands, weight

Case: TypeAlias = tuple[onnx.NodeProto, dict[str, Operand], int, int]
"""A node, its operands, the operator set and the number of constants."""

_FEW = examples(25)
_one, _discrete = Partition.one, Partition.discrete


def _node(op_type: str, given: Sequence[str], **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(op_type, list(given), ["y"], **attributes)


def _check(case: Case) -> Lowered:
    """Assert that nothing is computed: entries are moved, so they come out bit by bit."""
    node, given, opset, constants = case
    return check(node, given, opset=opset, constants=constants, rtol=0, atol=0)


@st.composite
def _shapes(draw: st.DrawFn, low: int = 1, high: int = 4, most: int = 4) -> list[int]:
    return [draw(st.integers(1, most)) for _ in range(draw(st.integers(low, high)))]


@st.composite
def _x(draw: st.DrawFn, shape: Sequence[int]) -> tuple[Operand, int]:
    constants = draw(st.integers(1, 2))
    return draw(operands(shape, constants=constants, factors=True, layouts=True)), constants


@st.composite
def _factorised(draw: st.DrawFn, size: int) -> list[int]:
    """Draw sizes with a product of `size`."""
    sizes = []
    while size > 1 and draw(st.integers(0, 3)):
        divisor = draw(st.sampled_from([d for d in range(1, size + 1) if size % d == 0]))
        sizes.append(divisor)
        size //= divisor
    return [*sizes, size] if size > 1 or draw(st.booleans()) else sizes


@st.composite
def _reshapes(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(0, 4, 6))
    x, constants = draw(_x(shape))
    wanted = draw(_factorised(math.prod(shape)))
    given = list(wanted)
    for axis in range(min(len(shape), len(wanted))):
        if wanted[axis] == shape[axis] and draw(st.booleans()):
            given[axis] = 0
    if wanted and draw(st.booleans()):
        given[draw(st.integers(0, len(wanted) - 1))] = -1
    opset = draw(st.sampled_from([7, 13, 14, 18]))
    attributes = {"allowzero": draw(st.integers(0, 1))} if opset >= 14 and 0 not in given else {}
    return _node("Reshape", ["x", "shape"], **attributes), {"x": x, "shape": known(given)}, opset, constants


@examples(70)
@given(case=_reshapes())
def test_reshape(case: Case) -> None:
    _check(case)


@pytest.mark.parametrize("zeros", [0, 1])
def test_reshape_of_nothing(zeros: int) -> None:
    x = Operand(np.zeros((0, 1), np.float32), (_discrete(0), _one(6)))
    shape = [3, 0] if zeros else [0, 2, 3]
    lowered = check(_node("Reshape", ["x", "shape"], allowzero=zeros), {"x": x, "shape": known(shape)})
    assert lowered.values[0].shape == tuple(shape)


def test_channels_stay_one_class_when_positions_merge() -> None:
    x = Operand(np.random.default_rng(0).random((2, 1, 4, 4), np.float32), (*map(_discrete, (2,)), _one(8), *map(
        _discrete, (4, 4))))  # fmt: skip
    lowered = check(_node("Reshape", ["x", "shape"]), {"x": x, "shape": known([0, 0, -1])})
    assert lowered.values[0].counts == (2, 1, 16)


def test_heads_are_split_off_channels_without_refining() -> None:
    part = Partition.of([0, 1, 2, 0, 1, 2])
    x = Operand(np.random.default_rng(0).random((5, 3), np.float32), (_discrete(5), part))
    lowered = check(_node("Reshape", ["x", "shape"]), {"x": x, "shape": known([5, 2, 3])})
    assert lowered.values[0].counts == (5, 1, 3)


@_FEW
@given(data=st.data())
def test_flatten(data: st.DataObject) -> None:
    shape = data.draw(_shapes())
    x, constants = data.draw(_x(shape))
    opset = data.draw(st.sampled_from([9, 11, 18]))
    axis = data.draw(st.integers(0 if opset < 11 else -len(shape), len(shape)))
    lowered = _check((_node("Flatten", ["x"], axis=axis), {"x": x}, opset, constants))
    assert math.prod(lowered.values[0].counts) == math.prod(part.count for part in x.parts)


@_FEW
@given(data=st.data())
def test_squeeze(data: st.DataObject) -> None:
    shape = [data.draw(st.sampled_from([1, 1, 2, 3])) for _ in range(data.draw(st.integers(1, 4)))]
    x, constants = data.draw(_x(shape))
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    axes = data.draw(st.none() | st.lists(st.sampled_from(ones), min_size=1, unique=True)) if ones else None
    if axes is None:
        opset = data.draw(st.sampled_from([9, 13]))
        case = _node("Squeeze", ["x"]), {"x": x}, opset, constants
    elif data.draw(st.booleans()):
        case = _node("Squeeze", ["x"], axes=sorted(axes)), {"x": x}, 9, constants
    else:
        signed = [axis - len(shape) * data.draw(st.integers(0, 1)) for axis in axes]
        case = _node("Squeeze", ["x", "axes"]), {"x": x, "axes": known(signed)}, 13, constants
    lowered = _check(case)
    assert lowered.values[0].counts == tuple(
        part.count for axis, part in enumerate(x.parts) if axis not in (ones if axes is None else axes)
    )


@_FEW
@given(data=st.data())
def test_unsqueeze(data: st.DataObject) -> None:
    shape = data.draw(_shapes(0, 3))
    x, constants = data.draw(_x(shape))
    rank = len(shape) + data.draw(st.integers(1, 3))
    axes = data.draw(st.lists(st.integers(0, rank - 1), min_size=rank - len(shape), max_size=rank - len(shape),
                              unique=True))  # fmt: skip
    if data.draw(st.booleans()):
        _check((_node("Unsqueeze", ["x"], axes=sorted(axes)), {"x": x}, 9, constants))
    else:
        signed = [axis - rank * data.draw(st.integers(0, 1)) for axis in axes]
        _check((_node("Unsqueeze", ["x", "axes"]), {"x": x, "axes": known(signed)}, 13, constants))


@_FEW
@given(data=st.data())
def test_transpose(data: st.DataObject) -> None:
    shape = data.draw(_shapes())
    x, constants = data.draw(_x(shape))
    order = data.draw(st.permutations(range(len(shape))))
    named = data.draw(st.booleans())
    lowered = _check((_node("Transpose", ["x"], **({"perm": order} if named else {})), {"x": x}, 13, constants))
    moved = order if named else range(len(shape))[::-1]
    assert lowered.values[0].parts == tuple(x.parts[axis] for axis in moved)


@_FEW
@given(data=st.data())
def test_expand(data: st.DataObject) -> None:
    wanted = data.draw(_shapes())
    shape = [data.draw(st.sampled_from([1, size])) for size in wanted][data.draw(st.integers(0, len(wanted))) :]
    x, constants = data.draw(_x(shape))
    target = [data.draw(st.sampled_from([1, size])) if have == size else size for have, size in zip(
        [1] * (len(wanted) - len(shape)) + shape, wanted, strict=True)]  # fmt: skip
    lowered = _check((_node("Expand", ["x", "shape"]), {"x": x, "shape": known(target)}, 13, constants))
    assert math.prod(lowered.values[0].counts) == math.prod(part.count for part in x.parts)


@_FEW
@given(
    shape=_shapes(0, 3),
    value=st.none() | st.sampled_from([np.float32(2.5), np.float64(0), np.int64(3), np.bool_(True)]),
)
def test_constant_of_shape(shape: list[int], value: np.generic | None) -> None:
    # More entries than are folded, so that the rule is what answers.
    shape = [5000, *shape]
    attributes = {} if value is None else {"value": onnx.numpy_helper.from_array(np.asarray([value]))}
    lowered = check(_node("ConstantOfShape", ["shape"], **attributes), {"shape": known(shape)})
    assert lowered.values[0].is_single
    assert lowered.values[0].zero == (value is None or not value)


@st.composite
def _joins(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    constants = draw(st.integers(1, 2))
    given, names = {}, []
    for index in range(draw(st.integers(1, 3))):
        name = f"x{index}"
        own = [draw(st.integers(0, 4)) if at == axis else size for at, size in enumerate(shape)]
        given[name] = draw(operands(own, constants=constants, factors=True, layouts=0 not in own))
        names += [name] * draw(st.integers(1, 2))
    signed = axis - len(shape) * draw(st.integers(0, 1))
    return _node("Concat", draw(st.permutations(names)), axis=signed), given, 13, constants


@examples(50)
@given(case=_joins())
def test_concat(case: Case) -> None:
    _check(case)


@pytest.mark.parametrize("constants", [1, 2])
def test_the_same_tensor_twice_has_no_more_classes(constants: int) -> None:
    shape = (2, 3) if constants == 1 else (2, 2, 3)
    x = Operand(np.random.default_rng(0).random(shape, np.float32), (Partition.of([0, 0, 1]), _discrete(3)),
                varied=constants > 1, weighted=True, factor=3.0)  # fmt: skip
    lowered = _check((_node("Concat", ["x", "x", "x"], axis=1), {"x": x}, 13, constants))
    assert lowered.values[0].counts == (2, 3)
    assert lowered.values[0].axes[1] == Partition.of([0, 1, 2] * 3)


def test_weights_join_to_one_class() -> None:
    given = {"a": weight((4, 2), [0.5, 2.0]), "b": weight((4, 3), [0.5, 2.0])}
    lowered = _check((_node("Concat", ["a", "b"], axis=1), given, 13, 2))
    assert lowered.values[0].counts == (1, 2)


@st.composite
def _splits(draw: st.DrawFn) -> Case:
    shape = draw(_shapes())
    axis = draw(st.integers(0, len(shape) - 1))
    form = draw(st.sampled_from(["attribute", "input", "equal", "num_outputs"]))
    lengths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    opset = {"attribute": 11, "input": 13, "equal": draw(st.sampled_from([11, 13])), "num_outputs": 18}[form]
    if form == "equal":
        lengths = [lengths[0]] * len(lengths)
    elif form == "num_outputs":
        lengths = [lengths[0]] * (len(lengths) - 1) + [draw(st.integers(1, lengths[0]))]
    shape[axis] = sum(lengths)
    x, constants = draw(_x(shape))
    given = {"x": x}
    attributes: dict[str, Any] = {"axis": axis - len(shape) * draw(st.integers(0, 1))}
    if form == "attribute":
        attributes["split"] = lengths
    elif form == "input":
        given["split"] = known(lengths)
    elif form == "num_outputs":
        attributes["num_outputs"] = len(lengths)
    outputs = [f"y{index}" for index in range(len(lengths))]
    return onnx.helper.make_node("Split", list(given), outputs, **attributes), given, opset, constants


@examples(50)
@given(case=_splits())
def test_split(case: Case) -> None:
    _check(case)


def test_pieces_of_one_class_are_one_class() -> None:
    x = Operand(np.ones((2, 1), np.float32), (_discrete(2), _one(6)))
    node = onnx.helper.make_node("Split", ["x"], ["a", "b"], axis=1, num_outputs=2)
    assert [value.counts for value in _check((node, {"x": x}, 18, 1)).values] == [(2, 1), (2, 1)]


@st.composite
def _cuts(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(1, 3, 6))
    x, constants = draw(_x(shape))
    axes = draw(st.lists(st.integers(0, len(shape) - 1), min_size=1, unique=True))
    form = draw(st.sampled_from(["attributes", "axes", "steps"]))
    steps = [draw(st.sampled_from([-3, -2, -1, 1, 2, 3])) if form == "steps" else 1 for _ in axes]
    starts = [draw(st.integers(-9, 9)) for _ in axes]
    # ONNX Runtime takes INT_MAX for the end in either direction, against the standard: only forward it is that.
    ends = [draw(st.integers(-9, 9) | st.sampled_from([2**31 - 1, 2**63 - 1] if step > 0 else [-(2**31) + 1]))
            for step in steps]  # fmt: skip
    if form == "attributes":
        return _node("Slice", ["x"], starts=starts, ends=ends, axes=axes), {"x": x}, 9, constants
    dtype = draw(st.sampled_from([np.int64, np.int32]))
    if dtype is np.int32:
        ends = [min(end, 2**31 - 1) for end in ends]
    signed = [axis - len(shape) * draw(st.integers(0, 1)) for axis in axes]
    given = {"x": x, "starts": known(starts, dtype), "ends": known(ends, dtype), "axes": known(signed, dtype)}
    if form == "steps":
        given["steps"] = known(steps, dtype)
    return _node("Slice", list(given)), given, draw(st.sampled_from([10, 13])), constants


@examples(80)
@given(case=_cuts())
def test_slice(case: Case) -> None:
    _check(case)


@pytest.mark.parametrize("opset", [9, 13])
def test_slice_without_axes(opset: int) -> None:
    x = Operand(np.random.default_rng(0).random((3, 4), np.float32), (_discrete(3), _discrete(4)))
    if opset == 9:
        case: Case = _node("Slice", ["x"], starts=[1, -3], ends=[3, -1]), {"x": x}, opset, 1
    else:
        given = {"x": x, "starts": known([1, -3]), "ends": known([3, -1]), "steps": known([1, 2])}
        case = _node("Slice", ["x", "starts", "ends", "", "steps"]), given, opset, 1
    _check(case)


@st.composite
def _gathers(draw: st.DrawFn) -> Case:
    shape = draw(_shapes(1, 3))
    axis = draw(st.integers(0, len(shape) - 1))
    x, constants = draw(_x(shape))
    of = draw(_shapes(0, 2, 3))
    dtype = draw(st.sampled_from([np.int64, np.int32]))
    signed = axis - len(shape) * draw(st.integers(0, 1))
    low = -shape[axis]
    if draw(st.booleans()):
        size = draw(st.integers(0, 5))
        of = draw(st.sampled_from([of, [size]]))
        numbers = draw(st.lists(st.integers(low, shape[axis] - 1), min_size=math.prod(of), max_size=math.prod(of)))
        places = known(np.asarray(numbers, dtype).reshape(of), dtype)
    else:
        parts = [draw(operands([size])).parts[0] for size in of]
        rng = np.random.default_rng(draw(st.integers(0, 99)))
        places = Operand(rng.integers(low, shape[axis], [part.count for part in parts]).astype(dtype), tuple(parts))
    return _node("Gather", ["x", "i"], axis=signed), {"x": x, "i": places}, 13, constants


@examples(70)
@given(case=_gathers())
def test_gather(case: Case) -> None:
    _check(case)


def test_equal_rows_are_the_same_at_any_index() -> None:
    given = {"x": weight((9, 4), [0.5, 2.0]), "i": Operand(np.asarray([3, 1, 4]), (_discrete(3),))}
    lowered = _check((_node("Gather", ["x", "i"]), given, 13, 2))
    assert lowered.values[0].counts == (1, 1)


@_FEW
@given(data=st.data())
def test_tile(data: st.DataObject) -> None:
    shape = data.draw(_shapes(1, 3))
    x, constants = data.draw(_x(shape))
    repeats = [data.draw(st.integers(1, 3)) for _ in shape]
    lowered = _check((_node("Tile", ["x", "n"]), {"x": x, "n": known(repeats)}, 13, constants))
    assert lowered.values[0].counts == tuple(part.count for part in x.parts)


@pytest.mark.parametrize("constants", [1, 2])
def test_no_index_picks_nothing(constants: int) -> None:
    node = _node("Gather", ["x", "i"])
    given = {"x": weight((3, 2), [0.5, 2.0][:constants]), "i": Operand(np.zeros(0, np.int64), (_discrete(0),))}
    lowered = check(node, given, constants=constants, ruled=False)
    assert lowered.values[0].shape == (0, 2)
