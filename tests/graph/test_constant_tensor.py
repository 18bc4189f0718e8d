"""What is stored, and what a node of it makes: the short ways give what the long ones do, and nothing is shared."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from epsinas_onnx.graph.constant_tensor import constant_tensor, node_proto
from epsinas_onnx.graph.evaluate import evaluate

NODE = ir.node("Add", [ir.val("a"), ir.val("b")], outputs=[ir.val("c")])


@pytest.mark.parametrize(
    "attributes",
    [{"value": ir.tensor([1.0, 2.0])}, {"value_ints": [1, 2]}, {"value_float": 0.5}, {"value_strings": ["a"]}],
    ids=str,
)
def test_a_constant_holds_what_onnx_ir_says(attributes: dict[str, object]) -> None:
    value = ir.node("Constant", [], attributes).outputs[0]  # type: ignore[arg-type]
    found, wanted = constant_tensor(value), ir.convenience.get_const_tensor(value)
    assert found is not None
    assert wanted is not None
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_what_is_no_constant_holds_nothing() -> None:
    assert constant_tensor(ir.val("x")) is None
    assert constant_tensor(NODE.outputs[0]) is None
    stored = ir.Value(name="w", const_value=ir.tensor([3.0], name="w"))
    assert constant_tensor(stored) is stored.const_value


def test_a_node_is_written_as_onnx_ir_writes_it() -> None:
    assert node_proto(NODE) == ir.to_proto(NODE)
    assert isinstance(node_proto(NODE), onnx.NodeProto)


def test_what_was_computed_before_is_not_shared() -> None:
    a, b = np.array([1, 2]), np.array([10, 20])
    first = evaluate(NODE, [a, b], {"": 18}, 8)
    assert first is not None
    first[0][:] = 0
    again = evaluate(NODE, [a, b], {"": 18}, 8)
    other = evaluate(NODE, [b, b], {"": 18}, 8)
    floats = evaluate(NODE, [a.astype(np.float32), b.astype(np.float32)], {"": 18}, 8)
    assert again is not None
    assert other is not None
    assert floats is not None
    np.testing.assert_array_equal(again[0], [11, 22])
    np.testing.assert_array_equal(other[0], [20, 40])
    assert floats[0].dtype == np.float32
    assert evaluate(NODE, [a, b], {"": 18}, 1) is None
