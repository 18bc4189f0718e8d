"""Operators that work entry by entry equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.graph.analysis.roles import RoleDecisions
from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.lump.walk import Walker
from epsinas_onnx.lump.write import write_model
from tests.lump.harness import Operand, check, examples, known, operands, run

_PLACES = {"rtol": 1e-5, "atol": 1e-6}
"""Both sides run the same kernel on the same numbers; which lane of a vector a number lies in may cost a last bit."""

_EXACT = {"rtol": 1e-9, "atol": 1e-9}


@st.composite
def typed(
    draw: st.DrawFn,
    shape: Sequence[int],
    dtype: npt.DTypeLike,
    constants: int = 1,
    low: float = -2.0,
    high: float = 2.0,
) -> Operand:
    """Draw an operand of any element type; integers and truth values hit each other often enough to be equal."""
    drawn = draw(operands(shape, constants=constants, low=low, high=high, layouts=True))
    kind = np.dtype(dtype).kind
    if kind == "b":
        drawn.array = np.asarray(drawn.array > 0)
    elif kind == "f":
        drawn.array = np.asarray(drawn.array, dtype)
    else:
        drawn.array = np.asarray(np.rint(drawn.array), dtype)
    return drawn


@st.composite
def shapes(draw: st.DrawFn, count: int) -> list[tuple[int, ...]]:
    """Draw shapes that ONNX broadcasts, of different ranks, each with ones where another has more."""
    whole = draw(st.lists(st.integers(1, 4), min_size=0, max_size=4))
    found = []
    for _ in range(count):
        own = whole[draw(st.integers(0, len(whole))) :]
        found.append(tuple(draw(st.sampled_from([size, size, 1])) for size in own))
    return found


_UNARY: dict[str, tuple[float, float]] = {
    "Abs": (-2, 2), "Acos": (-0.9, 0.9), "Acosh": (1.1, 4), "Asin": (-0.9, 0.9), "Asinh": (-2, 2), "Atan": (-2, 2),
    "Atanh": (-0.9, 0.9), "Ceil": (-4, 4), "Celu": (-2, 2), "Cos": (-2, 2), "Cosh": (-2, 2), "Elu": (-2, 2),
    "Erf": (-2, 2), "Exp": (-2, 2), "Floor": (-4, 4), "Gelu": (-2, 2), "HardSigmoid": (-4, 4), "HardSwish": (-4, 4),
    "Identity": (-2, 2), "LeakyRelu": (-2, 2), "Log": (0.1, 4), "Mish": (-2, 2), "Neg": (-2, 2),
    "Reciprocal": (0.5, 4), "Relu": (-2, 2), "Round": (-4, 4), "Selu": (-2, 2), "Shrink": (-2, 2),
    "Sigmoid": (-4, 4), "Sign": (-2, 2), "Sin": (-2, 2), "Sinh": (-2, 2), "Softplus": (-2, 2), "Softsign": (-2, 2),
    "Sqrt": (0.1, 4), "Tan": (-1, 1), "Tanh": (-2, 2), "ThresholdedRelu": (-2, 2),
}  # fmt: skip
_UNARY_ATTRIBUTES: dict[str, dict[str, float | str]] = {
    "Celu": {"alpha": 0.7}, "Elu": {"alpha": 0.3}, "Gelu": {"approximate": "tanh"},
    "HardSigmoid": {"alpha": 0.3, "beta": 0.4}, "LeakyRelu": {"alpha": 0.2}, "Selu": {"alpha": 1.2, "gamma": 1.1},
    "Shrink": {"bias": 0.5, "lambd": 0.9}, "ThresholdedRelu": {"alpha": 0.6},
}  # fmt: skip


@pytest.mark.parametrize("op_type", _UNARY)
@examples(8)
@given(data=st.data())
def test_unary(op_type: str, data: st.DataObject) -> None:
    low, high = _UNARY[op_type]
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, low=low, high=high, layouts=True))
    attributes = data.draw(st.sampled_from([{}, _UNARY_ATTRIBUTES.get(op_type, {})]))
    node = onnx.helper.make_node(op_type, ["x"], ["y"], **attributes)
    check(node, {"x": x}, opset=20, constants=constants, **_PLACES)


_DOUBLE_UNARY = (
    "Abs", "Ceil", "Cos", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Relu", "Round", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sqrt", "Tanh",
)  # fmt: skip


@pytest.mark.parametrize("op_type", _DOUBLE_UNARY)
@examples(8)
@given(data=st.data())
def test_unary_of_doubles(op_type: str, data: st.DataObject) -> None:
    low, high = _UNARY[op_type]
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, low=low, high=high, dtype=np.float64))
    check(onnx.helper.make_node(op_type, ["x"], ["y"]), {"x": x}, constants=constants, **_EXACT)


@pytest.mark.parametrize("op_type", ["Relu", "Neg", "Identity", "Dropout", "Sigmoid"])
@examples(25)
@given(data=st.data())
def test_a_pending_factor_is_part_of_the_value(op_type: str, data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, factors=True))
    check(onnx.helper.make_node(op_type, ["x"], ["y"]), {"x": x}, constants=constants, **_PLACES)


@pytest.mark.parametrize("op_type", ["IsInf", "IsNaN"])
@examples(15)
@given(data=st.data())
def test_what_is_no_number(op_type: str, data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants))
    odd = np.select([x.array > 1, x.array > 0, x.array > -1], [np.inf, np.nan, -np.inf], x.array)
    x.array = np.asarray(odd, np.float32)
    attributes = {"detect_negative": data.draw(st.integers(0, 1))} if op_type == "IsInf" else {}
    check(onnx.helper.make_node(op_type, ["x"], ["y"], **attributes), {"x": x}, constants=constants)


@pytest.mark.parametrize(
    ("op_type", "dtype"),
    [
        ("Not", bool), ("BitwiseNot", np.int32), ("Neg", np.int64), ("Abs", np.int32), ("Sign", np.int64),
        ("Relu", np.int32),
    ],
)  # fmt: skip
@examples(8)
@given(data=st.data())
def test_unary_of_integers(op_type: str, dtype: type, data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(typed(shape, dtype, constants, -5, 5))
    check(onnx.helper.make_node(op_type, ["x"], ["y"]), {"x": x}, constants=constants, rtol=0, atol=0)


@examples(15)
@given(x=operands([2, 3], factors=True), opset=st.sampled_from([7, 10, 12, 13]))
def test_the_mask_of_a_dropout(x: Operand, opset: int) -> None:
    check(onnx.helper.make_node("Dropout", ["x"], ["y", "mask"]), {"x": x}, opset=opset)


_BINARY: list[tuple[str, type, dict[str, int | str]]] = [
    *((op_type, dtype, {}) for op_type in ("Add", "Sub", "Mul", "Div") for dtype in (np.float32, np.float64, np.int64)),
    *((op_type, bool, {}) for op_type in ("And", "Or", "Xor", "Equal")),
    *((op_type, dtype, {}) for op_type in ("BitwiseAnd", "BitwiseOr", "BitwiseXor") for dtype in (np.int32, np.uint8)),
    *((op_type, dtype, {}) for op_type in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
      for dtype in (np.float32, np.float64, np.int64)),
    ("BitShift", np.uint8, {"direction": "LEFT"}), ("BitShift", np.uint32, {"direction": "RIGHT"}),
    ("Mod", np.int64, {}), ("Mod", np.int32, {"fmod": 1}), ("Mod", np.float32, {"fmod": 1}),
    ("Pow", np.float32, {}), ("Pow", np.float64, {}), ("PRelu", np.float32, {}),
]  # fmt: skip


@pytest.mark.parametrize(("op_type", "dtype", "attributes"), _BINARY)
@examples(12)
@given(data=st.data())
def test_binary(op_type: str, dtype: type, attributes: dict[str, int | str], data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    x_shape, y_shape = data.draw(shapes(2))
    if op_type == "PRelu":  # a slope is stretched, what it is applied to is not
        x_shape = np.broadcast_shapes(x_shape, y_shape)
    positive = op_type in ("Div", "Mod", "Pow") or np.dtype(dtype).kind == "u"
    x = data.draw(typed(x_shape, dtype, constants, 0.5 if positive else -3, 3))
    y = data.draw(typed(y_shape, dtype, constants, 1 if positive else -3, 3))
    node = onnx.helper.make_node(op_type, ["x", "y"], ["z"], **attributes)
    check(node, {"x": x, "y": y}, constants=constants, **(_EXACT if dtype is np.float64 else _PLACES))


@examples(25)
@given(data=st.data(), exponent=st.sampled_from([2, 2, 0.5, 3, -1]), dtype=st.sampled_from([np.float32, np.int64]))
def test_a_power_with_a_stored_exponent(data: st.DataObject, exponent: float, dtype: type) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, low=0.5, factors=False))
    rank = data.draw(st.integers(0, len(shape) + 1))
    if dtype is np.int64:
        exponent = math.ceil(abs(exponent))
    given = {"x": x, "y": known(np.full((1,) * rank, exponent), dtype)}
    check(onnx.helper.make_node("Pow", ["x", "y"], ["z"]), given, constants=constants, **_PLACES)


@examples(25)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64, np.int64]))
def test_where(data: st.DataObject, dtype: type) -> None:
    constants = data.draw(st.integers(1, 2))
    first, second, third = data.draw(shapes(3))
    given = {
        "c": data.draw(typed(first, bool, constants)),
        "x": data.draw(typed(second, dtype, constants, -9, 9)),
        "y": data.draw(typed(third, dtype, constants, -9, 9)),
    }
    check(onnx.helper.make_node("Where", list(given), ["z"]), given, constants=constants, rtol=0, atol=0)


@pytest.mark.parametrize("op_type", ["Sum", "Max", "Min", "Mean"])
@examples(20)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64, np.int64]))
def test_variadic(op_type: str, data: st.DataObject, dtype: type) -> None:
    if op_type in ("Sum", "Mean"):
        dtype = np.float32  # the only kernels
    constants = data.draw(st.integers(1, 2))
    found = data.draw(shapes(data.draw(st.integers(1, 4))))
    given = {f"x{i}": data.draw(typed(shape, dtype, constants, -9, 9)) for i, shape in enumerate(found)}
    check(onnx.helper.make_node(op_type, list(given), ["z"]), given, constants=constants, **_PLACES)


@examples(20)
@given(data=st.data(), opset=st.sampled_from([9, 10]))
def test_clip_with_attributes(data: st.DataObject, opset: int) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants))
    attributes = {name: value for name, value in (("min", -0.5), ("max", 0.7)) if data.draw(st.booleans())}
    node = onnx.helper.make_node("Clip", ["x"], ["y"], **attributes)
    check(node, {"x": x}, opset=opset, constants=constants, rtol=0, atol=0)


@examples(30)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64, np.int64]), opset=st.sampled_from([12, 18]))
def test_clip_with_bounds(data: st.DataObject, dtype: type, opset: int) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    given = {"x": data.draw(typed(shape, dtype, constants, -4, 4))}
    for name, low, high in (("low", -3, 1), ("high", -1, 3)):
        kind = data.draw(st.sampled_from(["absent", "stored", "computed"]))
        if kind == "stored":
            given[name] = known(np.rint(data.draw(st.floats(low, high))), dtype)
        elif kind == "computed":
            given[name] = data.draw(typed((), dtype, constants, low, high))
    names = [name if name in given else "" for name in ("x", "low", "high")]
    check(onnx.helper.make_node("Clip", names, ["y"]), given, opset=opset, constants=constants, rtol=0, atol=0)


_TYPES = (np.float32, np.float64, np.int64, np.int32, np.uint8, np.float16, bool)


@examples(25)
@given(data=st.data(), source=st.sampled_from(_TYPES), target=st.sampled_from(_TYPES), like=st.booleans())
def test_cast(data: st.DataObject, source: type, target: type, like: bool) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    given = {"x": data.draw(typed(shape, source, constants, 0, 9))}
    if like:
        given["like"] = data.draw(typed((2, 1), target, constants))
        node = onnx.helper.make_node("CastLike", ["x", "like"], ["y"])
    else:
        node = onnx.helper.make_node("Cast", ["x"], ["y"], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(target)))
    check(node, given, opset=19, constants=constants, rtol=0, atol=0)


@pytest.mark.parametrize("op_type", ["Relu", "Sigmoid", "Add", "Sub", "Mul", "Max", "Less"])
@examples(30)
@given(data=st.data())
def test_any_layout_in_memory(op_type: str, data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    shape = [data.draw(st.integers(1, 3)) for _ in range(4)]
    given = {"x": data.draw(operands(shape, constants=constants, layouts=True))}
    if op_type not in ("Relu", "Sigmoid"):
        other = [data.draw(st.sampled_from([size, size, size, 1])) for size in shape]
        given["y"] = data.draw(operands(other, constants=constants, layouts=True))
    node = onnx.helper.make_node(op_type, data.draw(st.permutations(list(given))), ["z"])
    check(node, given, constants=constants, **_PLACES)


@examples(20)
@given(data=st.data())
def test_a_value_less_itself_is_zero(data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    x = data.draw(operands(shape, constants=constants, factors=True))
    lowered = check(onnx.helper.make_node("Sub", ["x", "x"], ["z"]), {"x": x}, constants=constants, rtol=0, atol=0)
    (z,) = lowered.values
    assert (z.zero, z.is_single, z.depends, z.varied) == (True, True, False, False)
    assert z.cause is not None
    assert (z.cause.node.op_type, z.cause.zero) == ("Sub", False)


@examples(20)
@given(data=st.data(), first=st.booleans())
def test_a_product_with_a_stored_zero_is_zero(data: st.DataObject, first: bool) -> None:
    constants = data.draw(st.integers(1, 2))
    x_shape, zero_shape = data.draw(shapes(2))
    x = data.draw(operands(x_shape, constants=constants, factors=True))
    given = {"x": x, "zero": known(np.zeros(zero_shape), np.float32)}
    node = onnx.helper.make_node("Mul", ["zero", "x"] if first else ["x", "zero"], ["z"])
    (z,) = check(node, given, constants=constants, rtol=0, atol=0).values
    assert (z.zero, z.is_single, z.depends, z.varied) == (True, True, False, False)
    assert z.cause is not None
    assert (z.cause.node.op_type, z.cause.zero) == ("Mul", True)


@examples(20)
@given(data=st.data(), op_type=st.sampled_from(["Add", "Sub", "Sum"]))
def test_a_stored_zero_is_added_for_nothing(data: st.DataObject, op_type: str) -> None:
    constants = data.draw(st.integers(1, 2))
    x_shape, zero_shape = data.draw(shapes(2))
    x = data.draw(operands(x_shape, constants=constants))
    given = {"x": x, "zero": known(np.zeros(zero_shape), np.float32)}
    lowered = check(onnx.helper.make_node(op_type, ["x", "zero"], ["z"]), given, constants=constants, **_PLACES)
    if np.broadcast_shapes(x_shape, zero_shape) == x_shape:
        assert not lowered.graph.nodes


def walked(body: str) -> tuple[Lumped, Context]:
    """Lower the nodes of a graph from `x` float `[2, 3]` to `z`; return what became of `z`."""
    text = f'<ir_version: 8, opset_import: ["" : 18]> g (float[2,3] x) => (float[2,3] z) {{ {body} }}'
    model = ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))
    graph = LoweredGraph(model.opset_imports)
    context = Context(graph, Target())
    walker = Walker(context, RoleDecisions((), ()), "test", 0)
    parts = (Partition.discrete(2), Partition.discrete(3))
    x = Lumped(parts, ir.DataType.FLOAT, graph.input("x", (2, 3), ir.DataType.FLOAT), depends=True)
    walker.values[model.graph.inputs[0]] = x
    walker.walk(model.graph, model.graph.outputs)
    return walker.value(model.graph.outputs[0]), context


@pytest.mark.parametrize("body", ["y = Sub(x, x)", "n = Constant<value_float = 0.0>() y = Mul(x, n)"])
def test_a_zero_says_why_and_infinity_is_looked_for(body: str) -> None:
    kind = "Sub" if "Sub" in body else "Mul"
    for end in ("z = Add(y, c)", "z = Add(c, y)", "z = Sub(c, y)", "z = Sigmoid(y)", "z = Mul(y, c)"):
        z, context = walked(f"{body} c = Constant<value = float[2,3] {{1,2,3,4,5,6}}>() {end}")
        assert not z.depends
        assert z.cause is not None
        assert z.cause.node.op_type == kind
        if kind == "Mul":
            assert not context.guards  # an edge that is cut off costs nothing
            continue
        names = {f"guard{index}": context.canonical(guard) for index, guard in enumerate(context.guards)}
        proto = write_model(context.graph, names, np.ones(1, np.float32))
        for number, finite in ((3.0, True), (np.inf, False), (np.nan, False)):
            x = np.array([[1, 2, 3], [4, 5, number]], np.float32)
            assert np.isfinite(run(proto, {"x": x})).all() == finite


def test_a_factor_survives_what_is_linear() -> None:
    z, _ = walked("a = ReduceSum<keepdims = 1>(x) b = Neg(a) z = Identity(b)")
    assert z.factor == -1


@pytest.mark.parametrize("op_type", ["Sum", "Max", "Min", "Mean", "PRelu"])
@examples(20)
@given(data=st.data())
def test_where_the_operator_does_not_broadcast(op_type: str, data: st.DataObject) -> None:
    """In operator set 7 operands of one shape may have partitions that would need broadcasting."""
    constants = data.draw(st.integers(1, 2))
    (shape,) = data.draw(shapes(1))
    given = {name: data.draw(operands(shape, constants=constants)) for name in "xy"}
    check(onnx.helper.make_node(op_type, list(given), ["z"]), given, opset=7, constants=constants, ruled=False)


@pytest.mark.parametrize("alpha", [1.0, 0.5])
@examples(10)
@given(x=operands([2, 3], constants=2))
def test_swish(x: Operand, alpha: float) -> None:
    node = onnx.helper.make_node("Swish", ["x"], ["y"], alpha=alpha)
    check(node, {"x": x}, opset=24, constants=2, **_PLACES)


@pytest.mark.parametrize("op_type", ["Gelu", "QuickGelu", "FastGelu", "BiasGelu"])
@examples(25)
@given(data=st.data(), biased=st.booleans())
def test_contributed_gelu(op_type: str, data: st.DataObject, biased: bool) -> None:
    constants = data.draw(st.integers(1, 2))
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    given = {"x": data.draw(operands(shape, constants=constants, layouts=True))}
    if op_type == "BiasGelu" or (biased and op_type == "FastGelu"):
        given["bias"] = data.draw(operands(shape[-1:], constants=constants, layouts=True))
    attributes = {"alpha": 0.7} if op_type == "QuickGelu" else {}
    node = onnx.helper.make_node(op_type, list(given), ["y"], domain="com.microsoft", **attributes)
    check(node, given, constants=constants, domains={"com.microsoft": 1}, **_PLACES)
