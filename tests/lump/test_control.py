"""If, Loop and Scan: lowered bodies give what the plain graph gives, for both constants in one run where they can."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import pytest

from epsinas_onnx.graph.load import load_model
from epsinas_onnx.lump.lower import LumpedModel
from epsinas_onnx.runtime.providers import CPU
from epsinas_onnx.scoring.executors import ExecutionConfig, LumpedExecutor, PlainExecutor, lower
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import plan

Array = npt.NDArray[Any]
CONSTANTS = (0.3, 0.7)
BATCH = 3


def model(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """Return the model that `text` describes, opset 18; weights are stored float tensors of these shapes."""
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> g {text}')
    rng = np.random.default_rng(0)
    for name, shape in weights.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.random(shape, np.float32), name))
    return proto


def check(proto: onnx.ModelProto, *, apart: bool = False, **feeds: Array) -> LumpedModel:
    """Assert that the lumped outputs, expanded, are the plain ones; apart: one constant a run."""
    setting = ExecutionConfig([CPU], threads=1)
    options = GraphOptions()
    lowered = lower(plan(load_model(proto), BATCH, options), setting, 2)
    assert lowered.constants == (1 if apart else 2)
    assert lowered.cut_off is None
    inputs = feeds or {"x": np.random.default_rng(1).standard_normal((BATCH, 4), np.float32)}
    passes = LumpedExecutor(lowered, plan(load_model(proto), BATCH, options), setting).run(CONSTANTS, inputs, None)
    plain = PlainExecutor(plan(load_model(proto), BATCH, options), setting).run(CONSTANTS, inputs, None)
    (value,) = lowered.outputs.values()
    for ours, theirs in zip(passes, plain, strict=True):
        # Classes come as often as they have indices, over what is common to all: the same numbers, in another order.
        times = theirs.output.size // ours.output.size
        got, wanted = np.sort(np.repeat(ours.output, times)), np.sort(theirs.output)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        if value.parts is not None:
            assert theirs.output.size == np.prod(value.shape)
    return lowered


IF = """(float[N,4] x, bool c) => (float[N,6] y) {
    h = MatMul(x, W)
    y = If (c) <then_branch = yes () => (float[N,6] a) { a = MatMul(h, V) },
                else_branch = no () => (float[N,6] b) {
                    s = Concat <axis = 1> (x, x)
                    b = Gather <axis = 1> (s, first) }>
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_branches_get_the_partitions_of_both(condition: bool) -> None:
    proto = model(IF, W=(4, 5), V=(5, 6))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0, 1, 2, 3, 4, 5]), "first"))
    x = np.random.default_rng(1).standard_normal((BATCH, 4), np.float32)
    lowered = check(proto, x=x, c=np.asarray(condition))
    assert lowered.outputs["y"].counts == (3, 4)  # one branch has one class of features, the other repeats four


def test_a_known_condition_leaves_one_branch_and_no_if() -> None:
    text = IF.replace(", bool c", "").replace(
        "h = MatMul(x, W)", "h = MatMul(x, W)  c = Constant <value = bool {1}> ()"
    )
    proto = model(text, W=(4, 5), V=(5, 6))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([0, 1, 2, 3, 4, 5]), "first"))
    lowered = check(proto)
    assert lowered.outputs["y"].counts == (3, 1)
    assert not any(node.op_type == "If" for node in lowered.graph.nodes)


LOOP = """(float[N,4] x) => (float[N,4] y) {
    h = MatMul(x, W)
    trips = Constant <value = int64 {3}> ()
    go = Constant <value = bool {1}> ()
    y, all = Loop (trips, go, START) <
        body = step (int64 i, bool before, float[N,4] state) => (bool after, float[N,4] next, float[N,4] seen) {
        after = Identity(before)
        product = MatMul(state, V)
        squashed = Tanh(product)
        next = ADDED
        seen = Identity(squashed)
    }>
}"""


def test_a_carried_value_keeps_one_class_where_iterations_do() -> None:
    text = LOOP.replace("START", "h").replace("ADDED", "Add(squashed, h)")
    lowered = check(model(text, W=(4, 4), V=(4, 4)))
    assert lowered.outputs["y"].counts == (3, 1)
    assert not lowered.without_rule


def test_a_carried_value_is_refined_to_what_an_iteration_makes_of_it() -> None:
    """The start has one class of features; the body adds the input, so that all of them differ from then on."""
    text = LOOP.replace("START", "h").replace("ADDED", "Add(squashed, x)")
    assert check(model(text, W=(4, 4), V=(4, 4))).outputs["y"].counts == (3, 4)


def test_a_value_that_only_later_iterations_make_vary_is_carried_for_all_constants() -> None:
    """The start is the input, which no weight has touched; what comes out of the first iteration depends on weights."""
    text = LOOP.replace("START", "x").replace("ADDED", "Add(squashed, x)")
    assert check(model(text, W=(4, 4), V=(4, 4))).outputs["y"].counts == (3, 4)


def test_what_a_loop_stacks_has_an_axis_of_iterations() -> None:
    text = (
        LOOP.replace("START", "h").replace("ADDED", "Add(squashed, h)").replace("(float[N,4] y)", "(float[3,N,4] all)")
    )
    lowered = check(model(text, W=(4, 4), V=(4, 4)))
    assert lowered.outputs["all"].counts == (3, BATCH, 1)


def test_a_loop_that_ends_earlier_for_one_constant_runs_once_for_each() -> None:
    text = """(float[N,4] x) => (float[N,4] y) {
        h = MatMul(x, W)
        trips = Constant <value = int64 {5}> ()
        go = Constant <value = bool {1}> ()
        limit = Constant <value = float {1.5}> ()
        y = Loop (trips, go, h) <
            body = step (int64 i, bool before, float[N,4] state) => (bool after, float[N,4] next) {
            next = MatMul(state, V)
            size = Abs(next)
            largest = ReduceMax <keepdims = 0> (size)
            after = Less(largest, limit)
        }>
    }"""
    check(model(text, W=(4, 4), V=(4, 4)), apart=True)


def test_a_loop_inside_a_branch_reads_values_of_both_graphs_around_it() -> None:
    text = """(float[N,4] x, bool c) => (float[N,4] y) {
        h = MatMul(x, W)
        y = If (c) <
            then_branch = yes () => (float[N,4] a) {
                trips = Constant <value = int64 {2}> ()
                go = Constant <value = bool {1}> ()
                inner = Relu(h)
                a = Loop (trips, go, x) <
            body = step (int64 i, bool before, float[N,4] state) => (bool after, float[N,4] next) {
                    after = Identity(before)
                    one = MatMul(state, V)
                    two = Add(one, inner)
                    next = Add(two, h)
                }>
            },
            else_branch = no () => (float[N,4] b) { b = Identity(x) }>
    }"""
    check(
        model(text, W=(4, 4), V=(4, 4)),
        x=np.random.default_rng(1).standard_normal((BATCH, 4), np.float32), c=np.asarray(True),
    )  # fmt: skip


SCAN = """(float[N,4] x) => (OUT) {
    h = MatMul(x, W)
    zero = ReduceSum <keepdims = 0> (h, axis)
    last, all = Scan (zero, x) <num_scan_inputs = 1, scan_input_axes = [1], ATTRIBUTES
        body = step (float[N] state, float[N] column) => (float[N] next, float[N] seen) {
        grown = Mul(column, column)
        next = Add(state, grown)
        seen = Relu(next)
    }>
}"""


@pytest.mark.parametrize(
    "attributes", ["", "scan_output_axes = [1],", "scan_input_directions = [1], scan_output_axes = [-1],"]
)
@pytest.mark.parametrize("output", ["float[N] last", "float[K,M] all"])
def test_scan(attributes: str, output: str) -> None:
    proto = model(SCAN.replace("ATTRIBUTES", attributes).replace("OUT", output), W=(4, 4))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray([1]), "axis"))
    check(proto)
