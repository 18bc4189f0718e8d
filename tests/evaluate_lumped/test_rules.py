"""Rule by rule: base and deviation together are the plain value, and a tiny deviation moves along the tangent."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epsinas_onnx.evaluate_lumped.table import OPERATORS
from epsinas_onnx.evaluate_lumped.value import Pair, Value
from tests.evaluate_lumped.single import call_of, exactly, plainly, reference, split, value

Array = npt.NDArray[Any]


class Case(NamedTuple):
    """An operator with operands of some shapes, or stored arrays; all floats depend on the samples.

    low: the least number that is drawn. smooth: whether a derivative says what a tiny deviation becomes.
    """

    op_type: str
    operands: tuple[Any, ...]
    attributes: Mapping[str, Any] = MappingProxyType({})
    outputs: int = 1
    low: float = -2.0
    high: float = 2.0
    smooth: bool = True


def ints(*numbers: int) -> Array:
    return np.asarray(numbers, np.int64)


X = (3, 4, 5)
IMAGE = (3, 2, 6, 5)
CASES = [
    *(Case(name, (X,)) for name in ("Relu", "HardSwish", "Abs", "Neg", "Sigmoid", "Tanh", "Erf", "Exp",
      "Softplus", "Softsign", "Elu", "Celu", "Selu",
      "Mish", "Gelu",
      "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh", "Identity", "Softmax", "LogSoftmax")),
    *(Case(name, (X,), low=0.3) for name in ("Log", "Sqrt", "Reciprocal")),
    *(Case(name, (X,), low=-0.9, high=0.9) for name in ("Asin", "Acos", "Atanh", "Tan")),
    Case("LeakyRelu", (X,), {"alpha": 0.25}), Case("HardSigmoid", (X,), {"alpha": 0.25, "beta": 0.5}),
    Case("Acosh", (X,), low=1.2, high=3.0),
    Case("Gelu", (X,), {"approximate": "tanh"}),
    Case("Softmax", (X,), {"axis": 1}),
    Case("PRelu", (X, (5,))),
    Case("Clip", (X, np.asarray(-0.5), np.asarray(0.75))),
    Case("Clip", (X, None, np.asarray(0.25))),
    *(Case(name, (X, (4, 5))) for name in ("Add", "Sub", "Mul", "Max", "Min")),
    Case("Div", (X, (4, 5)), low=0.4),
    Case("Sum", (X, X, X)), Case("Mean", (X, X)),
    Case("Pow", (X, np.asarray(3.0))), Case("Pow", (X, np.asarray(1.5)), low=0.3),
    Case("Pow", (X, np.asarray(0.3)), low=0.3),
    Case("MatMul", ((3, 4, 5), (5, 2))), Case("MatMul", ((3, 4, 5), (3, 5, 4))), Case("MatMul", ((4, 5), (3, 5, 1))),
    Case("Gemm", ((4, 5), (3, 5), (3,)), {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Einsum", ((3, 4, 5), (3, 5, 2)), {"equation": "bij,bjk->bki"}),
    Case("Conv", (IMAGE, (4, 2, 3, 3), (4,)), {"pads": [1, 1, 1, 1]}),
    Case("Conv", (IMAGE, (4, 1, 3, 2)), {"group": 2, "strides": [2, 1], "dilations": [1, 2]}),
    Case("Conv", (IMAGE, (2, 1, 3, 3)), {"group": 2, "pads": [1, 0, 2, 1]}),
    Case("Conv", ((3, 2, 7), (3, 2, 3)), {"pads": [1, 1]}),
    Case("ConvTranspose", (IMAGE, (2, 3, 3, 3), (3,)), {"strides": [2, 2], "pads": [1, 0, 1, 1],
         "output_padding": [1, 0]}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    Case("AveragePool", (IMAGE,), {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0],
         "count_include_pad": 1}),
    Case("MaxPool", (IMAGE,), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    Case("GlobalAveragePool", (IMAGE,)),
    *(Case(name, (X, ints(1))) for name in ("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceL1", "ReduceL2",
      "ReduceSumSquare", "ReduceLogSumExp")),
    Case("ReduceSum", (X, ints(0, 2)), {"keepdims": 0}), Case("ReduceMean", (X, ints(0, 2)), {"keepdims": 0}),
    Case("ReduceMax", (X, ints(0, 2)), {"keepdims": 0}), Case("ReduceLogSum", (X, ints(1)), low=0.2),
    Case("CumSum", (X, np.asarray(1))), Case("CumSum", (X, np.asarray(-1)), {"exclusive": 1, "reverse": 1}),
    Case("Reshape", (X, ints(4, 3, -1))), Case("Reshape", (X, ints(0, 20))), Case("Flatten", (X,), {"axis": 2}),
    Case("Transpose", (X,), {"perm": [2, 0, 1]}), Case("Squeeze", ((3, 1, 5), ints(1))),
    Case("Unsqueeze", (X, ints(0, -1))),
    Case("Slice", (X, ints(1, -1), ints(3, -6), ints(0, 2), ints(1, -2))),
    Case("Gather", (X, ints(2, 0, -1)), {"axis": 1}), Case("GatherND", (X, np.asarray([[0, 1], [2, -1]]))),
    Case("GatherElements", (X, np.zeros((3, 4, 2), np.int64)), {"axis": 2}),
    Case("Concat", (X, (3, 1, 5)), {"axis": 1}), Case("Split", (X, ints(1, 3)), {"axis": 1}, 2),
    Case("Pad", (X, ints(0, 1, 0, 0, 2, 1))), Case("Pad", (X, ints(0, 1, 2, 0, 2, 1)), {"mode": "reflect"}),
    Case("Pad", (X, ints(0, 1, 0, 0, 2, 1), np.asarray(3.0))),
    Case("Expand", ((3, 1, 5), ints(2, 1, 4, 5))), Case("Tile", (X, ints(1, 2, 3))), Case("Trilu", (X,)),
    Case("DepthToSpace", ((2, 8, 2, 3),), {"blocksize": 2}), Case("SpaceToDepth", ((2, 2, 4, 6),), {"blocksize": 2}),
    Case("InstanceNormalization", (IMAGE, (2,), (2,))), Case("LpNormalization", (X,), {"axis": 1, "p": 2}),
    Case("Where", (np.asarray([[True], [False], [True], [False]]), X, (5,))),
    Case("LRN", ((2, 6, 3, 2),), {"size": 3, "alpha": 0.5, "beta": 0.75, "bias": 1.5}),
    Case("STFT", ((2, 11, 1), np.asarray(3), (5,), None)), Case("STFT", ((2, 11, 1), np.asarray(2), None,
         np.asarray(4)), {"onesided": 0}),
    Case("DFT", ((2, 6, 1),)), Case("DFT", ((2, 6, 2), np.asarray(8), np.asarray(1)), {"inverse": 1}),
    Case("DFT", ((2, 6, 1), None, np.asarray(1)), {"onesided": 1}),
    Case("ReverseSequence", ((4, 3, 2), ints(1, 4, 2))), Case("ReverseSequence", ((3, 4, 2), ints(1, 4, 2)),
         {"batch_axis": 0, "time_axis": 1}),
    Case("ScatterElements", (X, np.asarray([[[0, -1]], [[2, 1]]]), (2, 1, 2)), {"axis": 2}),
    Case("ScatterElements", (X, np.asarray([[[0, 0]], [[1, 1]]]), (2, 1, 2)), {"axis": 2, "reduction": "add"}),
    Case("ScatterND", (X, np.asarray([[0, 1], [2, 3]]), (2, 5))),
    Case("ScatterND", (X, np.asarray([[0, 1], [0, 1]]), (2, 5)), {"reduction": "add"}),
    Case("BatchNormalization", (IMAGE, (2,), (2,))),
    Case("BatchNormalization", (IMAGE, (2,), (2,), (2,), (2,)), low=0.3),
    Case("LayerNormalization", (X, (5,), (5,))), Case("RMSNormalization", (X, (5,))),
    Case("GroupNormalization", ((2, 4, 3, 2), (2,), (2,)), {"num_groups": 2}),
    Case("MeanVarianceNormalization", (IMAGE,)),
    Case("TopK", (X, ints(2)), {"axis": 1}, 2, smooth=False), Case("TopK", (X, ints(3)), {"largest": 0}, 2,
         smooth=False),
    *(Case(name, (X,), {"axis": 2, "keepdims": keep}, smooth=False)
      for name in ("ArgMax", "ArgMin") for keep in (0, 1)),
    Case("Hardmax", (X,), {"axis": 1}, smooth=False),
    Case("ScatterElements", (X, np.asarray([[[0, 0]], [[1, 1]]]), (2, 1, 2)), {"axis": 2, "reduction": "max"},
         smooth=False),
    Case("ReduceProd", (X, ints(1)), smooth=False),
    *(Case(name, (X,), smooth=False) for name in ("Floor", "Ceil", "Round", "Sign", "ThresholdedRelu", "Shrink")),
    *(Case(name, (X, (4, 5)), smooth=False) for name in ("Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Equal")),
    Case("Mod", (X, (4, 5)), {"fmod": 1}, low=0.5, smooth=False),
    Case("LSTM", ((4, 3, 2), (1, 20, 2), (1, 20, 5)), {"hidden_size": 5}, 3),
    Case("GRU", ((4, 3, 2), (1, 15, 2), (1, 15, 5), (1, 30)), {"hidden_size": 5, "direction": "reverse",
         "linear_before_reset": 1}, 2),
    *(Case(name, ((4, 3, 2), (2, gates * 5, 2), (2, gates * 5, 5), (2, 2 * gates * 5)), {"hidden_size": 5,
      "direction": "bidirectional"}, outputs)
      for name, gates, outputs in (("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3))),
]  # fmt: skip
IDS = [f"{index}-{case.op_type}" for index, case in enumerate(CASES)]
UNTESTED = {
    "Dropout", "Cast", "Resize", "Swish", "Shape", "Size", "ConstantOfShape", "Range", "OneHot", "Scatter",
    "SimplifiedLayerNormalization", "Not", "And", "Or", "Xor", "IsNaN",
}  # fmt: skip


def drawn(case: Case, seed: int) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(case.low, case.high, operand) if isinstance(operand, tuple) else operand
        for operand in case.operands
    ]


def test_every_operator_has_a_case() -> None:
    assert set(OPERATORS) - {case.op_type for case in CASES} == UNTESTED


@pytest.mark.parametrize("case", CASES, ids=IDS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 2**16), still=st.integers(0, 3), zero=st.booleans())
def test_base_and_deviation_are_the_value(case: Case, seed: int, still: int, zero: bool) -> None:
    there, here = drawn(case, seed), drawn(case, seed + 1)
    call = call_of(case.op_type, here, case.outputs, dict(case.attributes))
    operands = []
    for index, (base, array) in enumerate(zip(there, here, strict=True)):
        if not isinstance(case.operands[index], tuple) or (index == still and index):
            here[index] = there[index] = array
            operands.append(None if array is None else split(array, array))
            continue
        if zero and case.low < 0:
            there[index] = base = np.zeros(array.shape)
        operands.append(split(base, array))
    wanted, plain = reference(call, here), plainly(call, here)
    at_reference = reference(call, there)
    for made, array, own, base in zip(exactly(call, operands), wanted, plain, at_reference, strict=True):
        assert made.shape == array.shape == own.shape
        np.testing.assert_allclose(own, array, rtol=1e-11, atol=1e-11)
        if isinstance(made, Pair):
            np.testing.assert_array_equal(made.actual, array)
            np.testing.assert_array_equal(made.reference, base)
        else:
            np.testing.assert_allclose(made.formed(), array, rtol=1e-10, atol=1e-10)
            if np.isfinite(base).all():
                np.testing.assert_allclose(made.formed_base(), base, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("case", [case for case in CASES if case.smooth], ids=lambda case: case.op_type)
@pytest.mark.parametrize("exponent", [-70, -5000])
def test_a_tiny_deviation_moves_along_the_tangent(case: Case, exponent: int) -> None:
    """The difference quotient of the reference evaluator is the derivative to seven digits or so."""
    rng = np.random.default_rng(7)
    moves = [rng.uniform(-1, 1, o) if isinstance(o, tuple) else o for o in case.operands]
    bases = drawn(case, 5)
    call = call_of(case.op_type, bases, case.outputs, dict(case.attributes))
    step = 1e-6
    operands: list[Any] = []
    ends: tuple[list[Any], list[Any]] = ([], [])
    for base, move, form in zip(bases, moves, case.operands, strict=True):
        dynamic = isinstance(form, tuple)
        operands.append(value(base, move, exponent) if dynamic else None if base is None else split(base, base))
        for sign, end in zip((-1, 1), ends, strict=True):
            end.append(base + sign * step * move if dynamic else base)
    lower, upper = (reference(call, end) for end in ends)
    for made, low, high in zip(exactly(call, operands), lower, upper, strict=True):
        assert isinstance(made, Value)
        slope = (high - low) / (2 * step)
        if made.deviation is None:
            np.testing.assert_allclose(slope, 0, atol=1e-8)
            continue
        part = made.deviation
        found = np.broadcast_to(part.array, made.shape) * part.mantissa * 2.0 ** (part.exponent - exponent)
        np.testing.assert_allclose(found, slope, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "Abs", "MaxPool", "ReduceMax", "Max", "Min"])
def test_a_gate_is_homogeneous_where_the_base_is_0(name: str) -> None:
    case = next(case for case in CASES if case.op_type == name)
    arrays = drawn(case, 3)
    call = call_of(name, arrays, 1, dict(case.attributes))
    zero = [split(a, a) if a.dtype.kind == "i" else value(np.zeros(a.shape), a, -5000) for a in arrays]
    (made,) = exactly(call, zero)
    (wanted,) = reference(call, arrays)
    assert isinstance(made, Value)
    assert made.deviation is not None
    part = made.deviation
    np.testing.assert_allclose(part.array * part.mantissa * 2.0 ** (part.exponent + 5000), wanted, rtol=1e-12)


@pytest.mark.parametrize("name", ["Relu", "LeakyRelu", "Abs", "MaxPool", "ReduceMax", "Max", "Min"])
@pytest.mark.parametrize("exponent", [200, 1200, 5000])
def test_a_gate_is_homogeneous_far_above_its_base(name: str, exponent: int) -> None:
    """What pads a window stays infinitely far below, also where the base, in the deviation's units, is 0."""
    case = next(case for case in CASES if case.op_type == name)
    arrays = drawn(case, 3)
    call = call_of(name, arrays, 1, dict(case.attributes))
    base = drawn(case, 4)
    far = [split(a, a) if a.dtype.kind == "i" else value(b, a, exponent) for a, b in zip(arrays, base, strict=True)]
    (made,) = exactly(call, far)
    (wanted,) = reference(call, arrays)
    assert isinstance(made, Value)
    assert made.deviation is not None
    part = made.deviation
    found = np.broadcast_to(part.array, made.shape) * part.mantissa * 2.0 ** (part.exponent - exponent)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-50)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16), first=st.integers(-6000, 0), second=st.integers(-6000, 0))
def test_sums_align_any_exponents(seed: int, first: int, second: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 4))
    zero = np.zeros(4)
    (made,) = exactly(call_of("Add", [a, b], 1, {}), [value(zero, a, first), value(zero, b, second)])
    assert isinstance(made, Value)
    assert made.deviation is not None
    top = max(first, second)
    scale = [np.ldexp(x, max(e - top, -1074)) for x, e in ((a, first), (b, second))]
    part = made.deviation
    np.testing.assert_allclose(
        np.ldexp(part.array * part.mantissa, part.exponent - top), sum(scale), rtol=1e-15, atol=0
    )


@pytest.mark.parametrize("exponent", [-70, -5000])
def test_whole_numbers_and_orders_see_what_float64_does_not(exponent: int) -> None:
    base = np.asarray([[2.0, 2.0, 2.5, 0.0]])
    made = value(base, np.asarray([[-1.0, 1.0, -1.0, -1.0]]), exponent)

    def of(name: str, **attributes: Any) -> Array:
        (found, *_) = exactly(call_of(name, [base], 1, attributes), [made])
        return found.actual if isinstance(found, Pair) else found.formed()

    np.testing.assert_array_equal(of("Floor"), [[1, 2, 2, -1]])
    np.testing.assert_array_equal(of("Ceil"), [[2, 3, 3, 0]])
    np.testing.assert_array_equal(of("Round"), [[2, 2, 2, 0]])
    np.testing.assert_array_equal(of("Cast", to=7), [[1, 2, 2, 0]])
    np.testing.assert_array_equal(of("Cast", to=9), [[True, True, True, True]])
    np.testing.assert_array_equal(of("ArgMin", axis=1), [[3]])
    np.testing.assert_array_equal(of("ThresholdedRelu", alpha=2.0) > 0, [[False, True, True, False]])
    top = exactly(call_of("TopK", [base, ints(3)], 2, {}), [made, split(ints(3), ints(3))])[1]
    assert isinstance(top, Pair)
    np.testing.assert_array_equal(top.actual, [[2, 1, 0]])
