"""Which axis holds the samples, which inputs are images, and how sizes are decided."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx import Status, inspect, score
from epsinas_onnx.errors import ModelError, ShapeError, UnsupportedError
from epsinas_onnx.graph.analysis.input_spec import InputSpec, image_layout
from epsinas_onnx.graph.analysis.shapes import (
    IMAGE_SIZES,
    OTHER_SIZES,
    attempts,
    free_dimensions,
    input_specs,
    known_shape,
)
from epsinas_onnx.graph.load import load_model
from epsinas_onnx.graph.passes.infer_shapes import set_input_shapes
from tests.graph.models import build

FLOAT, INT64, UINT8 = ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.UINT8


def specs_of(inputs: str, batch: int = 6, attempt: int = 0, **shapes: Any) -> dict[str, InputSpec]:
    """Decide the shapes of a model with these inputs, each of which reaches the output."""
    names = [part.split()[-1] for part in inputs.replace("]", "] ").split(", ")]
    nodes = " ".join(f"o_{name} = Identity({name})" for name in names)
    outputs = ", ".join(f"float o_{name}" for name in names)
    model = load_model(build(f"({inputs}) => ({outputs}) {{ {nodes} }}")).model
    return {spec.name: spec for spec in input_specs(model, "m", batch, shapes, attempt)}


BATCH_AXES: dict[str, tuple[str, dict[str, int | None]]] = {
    "a free first axis without a name": ("float[?,3] x", {"x": 0}),
    "a free first axis with a name": ("float[batch,3] x", {"x": 0}),
    "a first axis of size 0 is free": ("float[0,3] x", {"x": 0}),
    "a fixed 1 where no input has a free axis": ("float[1,3] x", {"x": 0}),
    "a fixed 1 beside a free axis is no batch": ("float[N,3] x, float[1,7] shared", {"x": 0, "shared": None}),
    "the named axis wherever it lies": ("float[N,3] x, float[2,N,4] h", {"x": 0, "h": 1}),
    "the named axis behind a fixed 1": ("float[N,3] x, float[1,N,4] h", {"x": 0, "h": 1}),
    "two inputs with fixed 1": ("float[1,3] x, float[1,5] z", {"x": 0, "z": 0}),
    "recurrent state with a fixed batch": ("float[1,7] x, float[2,1,4] h", {"x": 0, "h": 1}),
    "recurrent state with a free axis without a name": ("float[?,7] x, float[2,?,4] h", {"x": 0, "h": 1}),
    "scalars are shared": ("float[N,3] x, float s", {"x": 0, "s": None}),
    "a vector of one entry is shared": ("float[1,3] x, float[1] s", {"x": 0, "s": None}),
    "a fixed size above 1 where there is no other": ("float[4,3] x", {"x": 0}),
    "the same fixed size in all inputs": ("float[4,3] x, float[4] l, float[7,3] z", {"x": 0, "l": 0, "z": None}),
    "a fixed 1 before a fixed size above it": ("float[4,3] x, float[1,5] z", {"x": None, "z": 0}),
    "a vector of a fixed size has none": ("float[4] x", {"x": None}),
}


def test_one_name_is_one_size() -> None:
    specs = specs_of("float[nodes,4] x, int64[2,edges] index, float[edges] distance")
    assert {name: spec.shape for name, spec in specs.items()} == {"x": (6, 4), "index": (2, 6), "distance": (6,)}


@pytest.mark.parametrize("case", BATCH_AXES)
def test_batch_axis_is_the_axis_of_the_samples(case: str) -> None:
    inputs, expected = BATCH_AXES[case]
    assert {name: spec.batch_axis for name, spec in specs_of(inputs).items()} == expected


@pytest.mark.parametrize("case", BATCH_AXES)
def test_batch_axis_gets_the_batch_and_every_fixed_size_stays(case: str) -> None:
    for spec in specs_of(BATCH_AXES[case][0], batch=6).values():
        for axis, (dim, size) in enumerate(zip(spec.declared, spec.shape, strict=True)):
            assert size == (6 if axis == spec.batch_axis and dim != 4 else dim)


@given(batch=st.integers(1, 500), rest=st.lists(st.integers(1, 9), max_size=4))
@settings(max_examples=40, deadline=None)
def test_with_batch_replaces_the_batch_axis_alone(batch: int, rest: list[int]) -> None:
    spec = InputSpec("x", FLOAT, ("N", *rest), (2, *rest), 0)
    assert spec.with_batch(batch).shape == (batch, *rest)
    shared = InputSpec("x", FLOAT, tuple(rest), tuple(rest), None)
    assert shared.with_batch(batch) is shared


LAYOUTS: list[tuple[tuple[Any, ...], ir.DataType, str | None]] = [
    (("N", 3, 32, 32), FLOAT, "NCHW"),
    (("N", 1, 28, 28), FLOAT, "NCHW"),
    (("N", 4, "H", "W"), FLOAT, "NCHW"),
    (("N", 32, 32, 3), FLOAT, "NHWC"),
    (("N", "H", "W", 1), FLOAT, "NHWC"),
    ((1, 224, 224, 3), UINT8, "NHWC"),
    (("N", None, None, None), FLOAT, "NCHW"),
    (("N", 12, 64, 64), FLOAT, None),
    (("N", 3, 32, 32), INT64, None),
    (("N", 3, 32), FLOAT, None),
    (("N", 3, 3, 3), FLOAT, "NCHW"),
]


@pytest.mark.parametrize(("declared", "dtype", "expected"), LAYOUTS)
def test_layout_follows_from_the_axis_with_1_3_or_4_channels(
    declared: tuple[Any, ...], dtype: ir.DataType, expected: str | None
) -> None:
    assert image_layout(declared, dtype) == expected


def test_free_image_axes_get_three_channels_and_an_image_size() -> None:
    assert specs_of("float[N,C,H,W] x")["x"].shape == (6, 3, IMAGE_SIZES[0], IMAGE_SIZES[0])
    assert specs_of("float[N,H,W,3] x")["x"].shape == (6, IMAGE_SIZES[0], IMAGE_SIZES[0], 3)


def test_other_free_axes_get_another_size() -> None:
    assert specs_of("int64[N,length] ids")["ids"].shape == (6, OTHER_SIZES[0])


def test_every_attempt_takes_the_next_size_and_the_last_one_stays() -> None:
    tries = range(attempts(load_model(build("(float[N,3,H,W] x) => (float y) { y = Relu(x) }")).model))
    images = [specs_of("float[N,3,H,W] x", attempt=i)["x"].shape[2] for i in tries]
    lengths = [specs_of("float[N,length] x", attempt=i)["x"].shape[1] for i in tries]
    assert images[: len(IMAGE_SIZES)] == list(IMAGE_SIZES)
    assert set(images[len(IMAGE_SIZES) :]) <= {IMAGE_SIZES[-1]}
    assert lengths == list(OTHER_SIZES)


def test_size_of_a_named_dimension_holds_wherever_the_name_stands() -> None:
    specs = specs_of("int64[N,length] ids, float[N,length,8] x", length=9)
    assert [spec.shape for spec in specs.values()] == [(6, 9), (6, 9, 8)]


def test_shape_of_an_input_replaces_its_free_sizes_but_the_batch_stays() -> None:
    assert specs_of("float[N,3,H,W] x", x=(1, 3, 17, 19))["x"].shape == (6, 3, 17, 19)


def test_shape_of_an_input_wins_over_the_size_of_a_dimension() -> None:
    assert specs_of("float[N,length] x", x=(1, 5), length=9)["x"].shape == (6, 5)


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "too few sizes": ("float[N,3,8,8] x", {"x": (1, 3, 8)}, r"1,3,8 .*'x'.*\[N,3,8,8\]"),
    "another fixed size": ("float[N,3,8,8] x", {"x": (1, 3, 8, 9)}, r"1,3,8,9 .*'x'"),
    "neither input nor dimension": ("float[N,3] x", {"z": 4}, r"'z'.*\(x\).*\(N\)"),
    "a size of 0": ("float[N,length] x", {"length": 0}, "'length' is 0"),
    "a negative size in a shape": ("float[N,length] x", {"x": (1, -1)}, "'x' is -1"),
    "a size that is no whole number": ("float[N,length] x", {"length": 2.5}, r"'length' is 2\.5"),
}


@pytest.mark.parametrize("case", WRONG)
def test_size_that_does_not_fit_is_refused_with_what_would(case: str) -> None:
    inputs, shapes, message = WRONG[case]
    with pytest.raises(ShapeError, match=message):
        specs_of(inputs, **shapes)


def without_rank() -> onnx.ModelProto:
    proto = build("(float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    return proto


def test_input_without_a_rank_is_refused_with_the_option_that_helps() -> None:
    with pytest.raises(ShapeError, match="--shape x="):
        input_specs(load_model(without_rank()).model, "m", 2, {})


def test_input_without_a_rank_takes_a_given_shape_whole() -> None:
    (spec,) = input_specs(load_model(without_rank()).model, "m", 2, {"x": (1, 3)})
    assert spec.shape == (2, 3)


def test_input_that_is_no_tensor_is_refused() -> None:
    proto = build("(float[N,3] x) => (float[N,3] y) { y = SequenceAt(s, at) }", at=np.array(0))
    tensors = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    proto.graph.input.append(onnx.helper.make_value_info("s", onnx.helper.make_sequence_type_proto(tensors)))
    with pytest.raises(UnsupportedError, match="'s'"):
        input_specs(load_model(proto).model, "m", 2, {})


def test_initializer_that_is_listed_as_an_input_is_not_fed() -> None:
    proto = build("(float[N,3] x) => (float[N,4] y) { y = MatMul(x, W) }", opset=7, W=(3, 4))
    assert [value.name for value in proto.graph.input] == ["x", "W"]
    assert [spec.name for spec in input_specs(load_model(proto).model, "m", 2, {})] == ["x"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [("float[N,3,8,8] x", False), ("float[N,3,H,W] x", True), ("int64[1,length] x", True), ("float[1,3] x", False)],
)
def test_sizes_behind_the_batch_that_are_open_are_a_guess(inputs: str, expected: bool) -> None:
    model = load_model(build(f"({inputs}) => (float y) {{ y = Identity(x) }}")).model
    assert free_dimensions(model, "m", {}) is expected


def test_concrete_shapes_replace_those_of_the_file_and_are_inferred_anew() -> None:
    proto = build("(float[1,3] x) => (float[1,4] y) { h = MatMul(x, W)  y = Relu(h) }", W=(3, 4))
    model = load_model(onnx.shape_inference.infer_shapes(proto)).model
    set_input_shapes(model, input_specs(model, "m", 5, {}))
    assert {value.name: known_shape(value) for node in model.graph for value in node.outputs} == {
        "h": (5, 4),
        "y": (5, 4),
    }


def test_shape_errors_are_model_errors_so_that_a_batch_of_files_goes_on() -> None:
    assert issubclass(ShapeError, ModelError)


def test_a_size_that_was_given_is_no_guess() -> None:
    model = load_model(build("(float[N,T,4] x) => (float[N,T,4] y) { y = Tanh(x) }")).model
    assert free_dimensions(model, "m", {})
    assert not free_dimensions(model, "m", {"T": 9})
    assert not free_dimensions(model, "m", {"x": (1, 9, 4)})


def test_a_given_shape_stands_in_for_a_rank_that_the_file_lacks() -> None:
    proto = build("(float[N,3] x) => (float[N,2] y) { y = MatMul(x, W) }", W=(3, 2))
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ShapeError, match=r"no rank.*--shape x="):
        score(proto, batch=8)
    result = score(proto, shapes={"x": (1, 3)}, batch=8, weights=(0.5, 2.0))
    assert result.batch == 8
    assert result.status is not Status.ERROR
    assert not any("sample by sample" in warning for warning in result.warnings)


@pytest.mark.parametrize("graph", ["y = MatMul(x, W)", "r = Reshape(x, d)  y = MatMul(r, W)"])
def test_a_file_with_a_batch_of_several_is_run_with_that_many(graph: str) -> None:
    tensors = {"W": (3, 4), "d": np.array([-1, 3])}
    held = build(f"(float[5,3] x) => (float[5,4] y) {{ {graph} }}", **tensors)
    free = build(f"(float[N,3] x) => (float[N,4] y) {{ {graph} }}", **tensors)
    options: dict[str, Any] = {"weights": (0.1, 0.5), "providers": "cpu"}
    found = score(held, batch=64, **options)
    assert (found.batch, found.raw_score) == (5, score(free, batch=5, **options).raw_score)
    assert "the file fixes the batch to 5, so that is how many samples were run" in found.warnings
    assert any("fixes the batch to 5" in note for note in inspect(held).warnings)
    assert score(held, inputs=np.ones((5, 3), np.float32), **options).batch == 5
    with pytest.raises(ShapeError, match=r"\[4, 3\].*does not fit"):
        score(held, inputs=np.ones((4, 3), np.float32), **options)


def test_weights_cut_by_sizes_of_the_signal_have_shapes() -> None:
    graph = (
        "(float[N,3] x) => (float[N,4] y) { b = Shape <start = 0, end = 1> (x)  d = Concat <axis = 0> (b, four)"
        "  z = Expand(number, d)  h = Shape <start = 1, end = 2> (z)  t = Mul(h, two)  w = Slice(W, zero, h, one)"
        "  v = Slice(W, h, t, one)  s = Add(w, v)  m = MatMul(x, s)  y = Tanh(m) }"
    )
    numbers = {"four": np.array([4]), "two": np.array([2]), "zero": np.array([0]), "one": np.array([1])}
    proto = build(graph, W=(3, 8), number=np.asarray(0, np.float32), **numbers)
    assert [(use.role, use.shape) for use in inspect(proto).uses if use.operator == "MatMul"] == [("weight", (3, 4))]
    plain = build("(float[N,3] x) => (float[N,4] y) { m = MatMul(x, W)  y = Tanh(m) }", W=(3, 4))
    for batch in (4, 7):
        options: dict[str, Any] = {"weights": (0.1, 0.5), "batch": batch, "providers": "cpu"}
        assert score(proto, **options).status is score(plain, **options).status
