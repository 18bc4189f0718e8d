"""How large outputs will be, told before they are computed, against what ONNX's reference implementation computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.graph.output_sizes import Known, is_small, outcome

F = np.float32
IMAGE = np.arange(16, dtype=F).reshape(1, 1, 4, 4)
CASES: dict[str, tuple[onnx.NodeProto, list[Any]]] = {
    "Range": (helper.make_node("Range", ["a", "b", "c"], ["y"]), [np.int64(3), np.int64(90), np.int64(7)]),
    "a negative Range": (helper.make_node("Range", ["a", "b", "c"], ["y"]), [np.int64(3), np.int64(-90), np.int64(-7)]),
    "an empty Range": (helper.make_node("Range", ["a", "b", "c"], ["y"]), [np.int64(3), np.int64(-90), np.int64(7)]),
    "Expand": (helper.make_node("Expand", ["a", "b"], ["y"]), [np.ones((3, 1), F), np.asarray([2, 1, 5])]),
    "ConstantOfShape": (helper.make_node("ConstantOfShape", ["a"], ["y"]), [np.asarray([2, 0, 5])]),
    "Tile": (helper.make_node("Tile", ["a", "b"], ["y"]), [np.ones((3, 2), F), np.asarray([2, 5])]),
    "Pad": (helper.make_node("Pad", ["a", "b"], ["y"]), [np.ones((3, 2), F), np.asarray([2, 0, 1, 5])]),
    "OneHot": (
        helper.make_node("OneHot", ["a", "b", "c"], ["y"]), [np.asarray([1, 2]), np.asarray(9), np.asarray([0, 1])]
    ),
    "Resize": (
        helper.make_node("Resize", ["a", "", "c"], ["y"], mode="nearest"), [IMAGE, None, np.asarray([1, 1, 2, 3], F)]
    ),
    "Concat": (helper.make_node("Concat", ["a", "a"], ["y"], axis=0), [np.arange(5), np.arange(5)]),
    "Gather": (helper.make_node("Gather", ["a", "b"], ["y"]), [np.ones((3, 2), F), np.zeros((4, 5), int)]),
    "Add": (helper.make_node("Add", ["a", "b"], ["y"]), [np.ones((3, 1), F), np.ones((1, 7), F)]),
    "MatMul": (helper.make_node("MatMul", ["a", "b"], ["y"]), [np.ones((30, 1), F), np.ones((1, 7), F)]),
    "Einsum": (helper.make_node("Einsum", ["a", "b"], ["y"], equation="i,j->ij"), [np.ones(30, F), np.ones(7, F)]),
    "NonZero": (helper.make_node("NonZero", ["a"], ["y"]), [np.eye(4, dtype=F)]),
    "Compress": (helper.make_node("Compress", ["a", "b"], ["y"]), [np.arange(5), np.asarray([1, 0, 1, 1, 0], bool)]),
    "Unique": (helper.make_node("Unique", ["a"], ["y", "i", "j", "c"]), [np.asarray([3, 1, 3, 3, 2])]),
    "Split": (helper.make_node("Split", ["a", "b"], ["y", "z"]), [np.arange(9), np.asarray([2, 7])]),
    "TopK": (helper.make_node("TopK", ["a", "b"], ["y", "i"]), [np.arange(9, dtype=F), np.asarray([3])]),
    "EyeLike": (helper.make_node("EyeLike", ["a"], ["y"]), [np.ones((3, 5), F)]),
    "HannWindow": (helper.make_node("HannWindow", ["a"], ["y"]), [np.int64(40)]),
    "Conv": (
        helper.make_node("Conv", ["a", "b"], ["y"], pads=[1, 1, 1, 1], strides=[2, 2]),
        [IMAGE, np.ones((3, 1, 3, 3), F)],
    ),
    "MaxPool": (helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2, 2]), [IMAGE]),
    "Slice": (helper.make_node("Slice", ["a", "b", "c"], ["y"]), [np.arange(9), np.asarray([2]), np.asarray([2**62])]),
    "Reshape": (helper.make_node("Reshape", ["a", "b"], ["y"]), [np.arange(12), np.asarray([3, -1])]),
    "Unsqueeze": (helper.make_node("Unsqueeze", ["a", "b"], ["y"]), [np.arange(12), np.asarray([0])]),
    "ReduceSum": (helper.make_node("ReduceSum", ["a"], ["y"], keepdims=0), [IMAGE]),
    "Cast": (helper.make_node("Cast", ["a"], ["y"], to=onnx.TensorProto.BOOL), [np.arange(12)]),
    "Where": (helper.make_node("Where", ["a", "b", "c"], ["y"]), [np.ones((2, 1), bool), np.ones(3, F), np.ones(1, F)]),
}  # fmt: skip
IMPORTS = {"": 21}


@pytest.mark.parametrize("name", CASES)
def test_sizes_that_are_told_are_those_that_are_computed_or_bound_them(name: str) -> None:
    node, arrays = CASES[name]
    given = [None if array is None else np.asarray(array) for array in arrays]
    feeds = {key: array for key, array in zip(node.input, given, strict=True) if array is not None}
    computed = ReferenceEvaluator(node, opsets=IMPORTS).run(None, feeds)
    told = outcome(node, [None if array is None else Known.of(array) for array in given], IMPORTS)
    for one, array in zip(told, computed, strict=True):
        assert one.most is not None
        assert one.most >= np.asarray(array).size
        if one.shape is not None:
            assert one.shape == np.asarray(array).shape
            assert one.most == np.asarray(array).size


@pytest.mark.parametrize("name", CASES)
def test_a_node_is_computed_up_to_the_size_that_is_told_and_not_beyond(name: str) -> None:
    node, arrays = CASES[name]
    given = [None if array is None else np.asarray(array) for array in arrays]
    told = outcome(node, [None if array is None else Known.of(array) for array in given], IMPORTS)
    most = max(one.most or 0 for one in told)
    values = {key: ir.Value(name=key) for key in node.input if key}
    parsed = ir.Node(
        "", node.op_type, [values.get(key) for key in node.input],
        [ir.from_proto(attribute) for attribute in node.attribute], num_outputs=len(node.output),
    )  # fmt: skip
    for index, output in enumerate(parsed.outputs):
        output.name = node.output[index]
    assert evaluate(parsed, given, IMPORTS, most) is not None
    if most:
        assert evaluate(parsed, given, IMPORTS, most - 1) is None


def test_what_nobody_knows_the_size_of_is_not_computed() -> None:
    node = helper.make_node("Warp", ["a"], ["y"], domain="my.domain")
    assert not is_small(node, [Known.of(np.arange(3))], {"my.domain": 1}, 2**40)
    unknown = Known(ir.DataType.FLOAT, None)
    assert not is_small(helper.make_node("Tanh", ["a"], ["y"]), [unknown], IMPORTS, 2**40)


VECTOR = np.ones((1, 1, 4), F)
LABORIOUS: dict[str, tuple[onnx.NodeProto, list[Any]]] = {
    "Conv": (
        helper.make_node("Conv", ["a", "b"], ["y"], pads=[2**30, 0], strides=[2**30]), [VECTOR, np.ones((1, 1, 2), F)]
    ),
    "MaxPool": (
        helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2**30], pads=[2**30 - 1, 0], strides=[2**30]), [VECTOR]
    ),
    "Einsum": (helper.make_node("Einsum", ["a", "a", "a"], ["y"], equation="i,j,k->"), [np.ones(4096, F)] * 3),
    "RoiAlign": (
        helper.make_node("RoiAlign", ["a", "b", "c"], ["y"], sampling_ratio=2**20),
        [IMAGE, np.ones((1, 4), F), np.zeros(1, int)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LABORIOUS)
def test_a_small_output_that_takes_much_room_or_time_is_not_computed(name: str) -> None:
    node, arrays = LABORIOUS[name]
    operands = [Known.of(array) for array in arrays]
    assert max(one.most or 0 for one in outcome(node, operands, IMPORTS)) <= 4096
    assert not is_small(node, operands, IMPORTS, 4096)
