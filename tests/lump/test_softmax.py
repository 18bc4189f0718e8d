"""Softmax counts a class as often as it has indices; over one class it is even, whatever goes in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Operand, check, examples, operands


@examples(50)
@given(data=st.data(), op_type=st.sampled_from(["Softmax", "LogSoftmax"]), opset=st.sampled_from([9, 11, 13, 18]))
def test_softmax(data: st.DataObject, op_type: str, opset: int) -> None:
    shape = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    constants = data.draw(st.integers(1, 2))
    axis = data.draw(st.integers(0 if opset < 11 else -len(shape), len(shape) - 1))
    x = data.draw(operands(shape, constants=constants))
    check(onnx.helper.make_node(op_type, ["x"], ["y"], axis=axis), {"x": x}, opset=opset, constants=constants)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_one_class_gets_even_shares_that_depend_on_nothing(op_type: str) -> None:
    x = Operand(np.asarray([[1.0], [7.0]], np.float32), (Partition.discrete(2), Partition.one(5)))
    lowered = check(onnx.helper.make_node(op_type, ["x"], ["y"], name="head"), {"x": x})
    (value,) = lowered.values
    assert not value.depends
    assert value.cause is not None
    assert value.cause.node.name == "head"
