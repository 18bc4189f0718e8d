"""A lowered graph shares what it can, is written with what its outputs need, and costs what one counts by hand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.cost import multiply_adds, peak_bytes
from epsinas_onnx.lump.graph import Body, LoweredGraph
from epsinas_onnx.lump.value import Tensor
from epsinas_onnx.lump.write import write_model
from tests.lump.harness import examples, run

FLOAT = ir.DataType.FLOAT
X = np.arange(6, dtype=np.float32).reshape(2, 3) - 2


@pytest.fixture
def graph() -> LoweredGraph:
    """Return a graph without nodes."""
    return LoweredGraph({"": 18, "com.microsoft": 1})


def written(graph: LoweredGraph, outputs: dict[str, Tensor], weight: np.ndarray | None = None) -> onnx.ModelProto:
    """Write a graph and have ONNX look at it."""
    proto = write_model(graph, outputs, weight)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_a_node_that_was_there_is_shared(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    first = graph.op("Relu", [x], (2, 3))
    assert graph.op("Relu", [x], (2, 3)) is first
    assert graph.op("Elu", [x], (2, 3), alpha=0.5) is graph.op("Elu", [x], (2, 3), alpha=0.5)
    assert graph.op("Elu", [x], (2, 3), alpha=0.5) is not graph.op("Elu", [x], (2, 3), alpha=0.6)
    assert graph.op("Sum", [x, first], (2, 3)) is not graph.op("Sum", [first, x], (2, 3))
    assert graph.op("Gelu", [x], (2, 3)) is not graph.op("Gelu", [x], (2, 3), domain="com.microsoft")
    assert [node.op_type for node in graph.nodes] == ["Relu", "Elu", "Elu", "Sum", "Sum", "Gelu", "Gelu"]


def test_attributes_of_the_user_are_compared_by_what_they_say(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)

    def turned(order: list[int]) -> Tensor:
        return graph.op("Transpose", [x], (3, 2), perm=ir.AttrInt64s("perm", order))

    assert turned([1, 0]) is turned([1, 0])
    assert turned([1, 0]) is not turned([0, 1])


def test_a_random_node_is_not_shared(graph: LoweredGraph) -> None:
    made = [graph.ops("RandomNormal", [], [((2,), FLOAT)], attributes={"shape": [2]}, share=False) for _ in range(2)]
    assert made[0][0] is not made[1][0]


def test_a_body_sees_what_was_made_outside_and_nothing_outside_sees_it(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    outer = graph.op("Relu", [x], (2, 3))
    graph.open()
    assert graph.in_body
    assert graph.op("Relu", [x], (2, 3)) is outer
    inner = graph.op("Abs", [x], (2, 3))
    body = graph.close([], [inner])
    assert [node.op_type for node in body.nodes] == ["Abs"]
    assert graph.op("Abs", [x], (2, 3)) is not inner


@examples(20)
@given(steps=st.lists(st.sampled_from([(2, 3), (3, 2), (6,), (1, 6), (6, 1, 1)]), min_size=1, max_size=5))
def test_reshapes_of_reshapes_become_one(steps: list[tuple[int, ...]]) -> None:
    graph = LoweredGraph({"": 18})
    tensor = graph.input("x", (2, 3), FLOAT)
    for shape in steps:
        tensor = graph.reshape(tensor, shape)
        assert tensor.shape == shape
    proto = written(graph, {"y": tensor})
    assert [node.op_type for node in proto.graph.node] == (["Identity"] if steps[-1] == (2, 3) else ["Reshape"])
    np.testing.assert_array_equal(run(proto, {"x": X})[0], X.reshape(steps[-1]))


def test_an_empty_tensor_is_reshaped(graph: LoweredGraph) -> None:
    x = graph.input("x", (0, 3), FLOAT)
    (y,) = run(written(graph, {"y": graph.reshape(x, (3, 0, 2))}), {"x": np.zeros((0, 3), np.float32)})
    assert y.shape == (3, 0, 2)


def test_stored_tensors_are_laid_out_now(graph: LoweredGraph) -> None:
    assert graph.initializers[graph.reshape(graph.constant(X), (6,))].shape == (6,)
    derived = graph.reshape(graph.derive(lambda weight: 2 * weight, (2,), FLOAT), (2, 1))
    assert not graph.nodes
    proto = written(graph, {"y": derived}, np.array([1.0, 4.0], np.float32))
    np.testing.assert_array_equal(run(proto, {})[0], [[2.0], [8.0]])


def test_equal_constants_are_stored_once(graph: LoweredGraph) -> None:
    one = graph.constant(X)
    assert graph.constant(X.copy()) is one
    others = [graph.constant(X.reshape(3, 2)), graph.constant(X.astype(np.float64)), graph.constant(X + 1)]
    assert len({one, *others}) == len(graph.initializers) == 4


def test_what_no_output_needs_is_not_written(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    kept = graph.op("Add", [x, graph.constant(X)], (2, 3))
    graph.op("Mul", [kept, graph.constant(X + 1)], (2, 3))
    graph.derive(lambda weight: weight, (1,), FLOAT)
    proto = written(graph, {"y": graph.op("Relu", [kept], (2, 3))})
    assert [node.op_type for node in proto.graph.node] == ["Add", "Relu"]
    assert len(proto.graph.initializer) == 1
    np.testing.assert_array_equal(run(proto, {"x": X})[0], np.maximum(2 * X, 0))


def test_outputs_that_no_node_makes_or_that_have_two_names(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    y = graph.op("Relu", [x], (2, 3))
    z = graph.op("Neg", [y], (2, 3))  # reads what is written under another name
    weight = graph.derive(lambda weight: weight, (1,), FLOAT)
    names = {"y": y, "input": x, "stored": graph.constant(X), "again": y, "z": z, "derived": weight}
    proto = written(graph, names, np.array([3.0], np.float32))
    assert [value.name for value in proto.graph.output] == list(names)
    got = dict(zip(names, run(proto, {"x": X}), strict=True))
    relu = np.maximum(X, 0)
    wanted = {"y": relu, "input": X, "stored": X, "again": relu, "z": -relu, "derived": np.array([3.0])}
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array)


def test_attributes_of_every_kind_are_written(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    turned = graph.op("Transpose", [x], (3, 2), perm=[1, 0])
    scaled = graph.op("LeakyRelu", [turned], (3, 2), alpha=0.5)
    filled = graph.op(
        "ConstantOfShape", [graph.constant(np.array([3, 2]))], (3, 2), FLOAT, value=np.array([7], np.float32)
    )
    smooth = graph.op("Add", [scaled, filled], (3, 2))
    y = graph.op("Softmax", [smooth], (3, 2), axis=0)
    gelu = graph.op("Einsum", [y, x], (3, 3), equation="ij,jk->ik")
    (got,) = run(written(graph, {"y": gelu}), {"x": X})
    scores = np.where(X.T > 0, X.T, X.T / 2)
    weights = np.exp(scores) / np.exp(scores).sum(axis=0)
    np.testing.assert_allclose(got, weights @ X, rtol=1e-5)


def test_peak_bytes_of_a_chain_are_two_tensors(graph: LoweredGraph) -> None:
    x = graph.input("x", (10,), FLOAT)  # 40 bytes, and there throughout
    a = graph.op("Relu", [x], (10,))
    b = graph.op("Expand", [a, graph.constant(np.array([5, 10]))], (5, 10))  # 200
    c = graph.op("ReduceSum", [b], (1, 1))  # 4
    d = graph.op("Neg", [c], (1, 1))
    assert peak_bytes(graph, [d]) == (40 + 40 + 200, b.name)
    assert peak_bytes(graph, [a]) == (40 + 40, max(x.name, a.name))
    assert peak_bytes(graph, [d, a]) == (40 + 40 + 200 + 4, b.name)


def test_a_reshape_takes_no_memory_and_keeps_what_it_reads(graph: LoweredGraph) -> None:
    x = graph.input("x", (1,), FLOAT)
    wide = graph.op("Expand", [x, graph.constant(np.array([4, 25]))], (4, 25))  # 400
    flat = graph.reshape(wide, (100,))
    other = graph.op("Expand", [x, graph.constant(np.array([50]))], (50,))  # 200, while `flat` is to be read yet
    joined = graph.op("Concat", [flat, other], (150,), axis=0)  # 600
    assert peak_bytes(graph, [joined])[0] == 4 + 400 + 200 + 600


def test_what_a_body_reads_lives_until_then(graph: LoweredGraph) -> None:
    x = graph.input("x", (1,), FLOAT)
    wide = graph.op("Expand", [x, graph.constant(np.array([100]))], (100,))  # 400
    other = graph.op("Expand", [x, graph.constant(np.array([50]))], (50,))  # 200
    bodies = []
    for _ in range(2):
        graph.open()
        bodies.append(graph.close([], [graph.op("Neg", [wide], (100,))]))
    chosen = graph.op("If", [other], (100,), FLOAT, then_branch=bodies[0], else_branch=bodies[1])  # 400
    assert peak_bytes(graph, [chosen])[0] == 4 + 400 + 200 + 400


def test_multiply_adds_of_a_graph_are_those_that_its_outputs_need(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    square = graph.op("MatMul", [x, graph.constant(np.ones((3, 5), np.float32))], (2, 5))
    stored = graph.constant(np.ones((5, 4), np.float32))
    folded = graph.op("MatMul", [stored, graph.constant(np.ones((4, 4), np.float32))], (5, 4))
    y = graph.op("Gemm", [square, folded], (2, 4))
    z = graph.op("MatMul", [square, graph.constant(np.ones((5, 9), np.float32))], (2, 9))
    assert multiply_adds(graph, [y]).total == 2 * 5 * 3 + 2 * 4 * 5
    assert multiply_adds(graph, [y, z]).total == 2 * 5 * 3 + 2 * 4 * 5 + 2 * 9 * 5


def test_multiply_adds_of_bodies_count(graph: LoweredGraph) -> None:
    x = graph.input("x", (2, 3), FLOAT)
    weight = graph.constant(np.ones((3, 3), np.float32))

    def body(times: int, true: bool = True) -> Body:
        graph.open()
        held = graph.placeholder("held", (2, 3), FLOAT)
        inner = held
        for _ in range(times):
            inner = graph.op("MatMul", [inner, weight], (2, 3))
        goes_on = graph.placeholder("condition", (), ir.DataType.BOOL)
        condition = graph.constant(np.asarray(true))
        return graph.close([graph.placeholder("iteration", (), ir.DataType.INT64), goes_on, held], [condition, inner])

    chosen = graph.op("If", [x], (2, 3), then_branch=body(1), else_branch=body(2))
    assert multiply_adds(graph, [chosen]).total == 2 * 18
    trips = graph.constant(np.asarray(5))
    assert multiply_adds(graph, [graph.op("Loop", [trips, None, x], (2, 3), FLOAT, body=body(1))]).total == 5 * 18
    found = multiply_adds(graph, [graph.op("Loop", [trips, None, x], (2, 3), FLOAT, body=body(1, true=False))])
    assert (found.total, found.once is None) == (18, False)
    scanned = graph.op("Scan", [x], (2, 3), body=body(1), num_scan_inputs=1, scan_input_axes=[1])
    assert multiply_adds(graph, [scanned]).total == 3 * 18
