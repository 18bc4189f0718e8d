"""Matrix products equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import SeparateRuns
from tests.lump.harness import Operand, check, examples, operands, weight

_CONSTANTS = (0.3, -1.5)


@st.composite
def matrices(draw: st.DrawFn, shape: Sequence[int], constants: int, dtype: npt.DTypeLike = np.float32) -> Operand:
    """Draw an operand of a product: an activation with any partitions, or a weight."""
    if dtype is np.float32 and draw(st.sampled_from([True, False, False])):
        found = weight(shape, _CONSTANTS[:constants])
        found.array = np.asarray(found.array)
        return found
    return draw(operands(shape, constants=constants, factors=True, dtype=dtype, layouts=True))


@st.composite
def product_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw shapes of rank 1 to 4 that MatMul takes; batch axes are broadcast, and one side may have fewer."""
    rows, shared, columns = (draw(st.integers(1, 6)) for _ in range(3))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    found = []
    for matrix in ((rows, shared), (shared, columns)):
        own = batch[draw(st.integers(0, len(batch))) :]
        found.append((*(draw(st.sampled_from([size, size, 1])) for size in own), *matrix))
    if draw(st.sampled_from([True, False, False, False])):
        found[0] = (shared,)
    if draw(st.sampled_from([True, False, False, False])):
        found[1] = (shared,)
    return found[0], found[1]


@examples(80)
@given(data=st.data())
def test_matmul(data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    left, right = data.draw(product_shapes())
    given = {"a": data.draw(matrices(left, constants)), "b": data.draw(matrices(right, constants))}
    check(onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), given, constants=constants)


@examples(25)
@given(data=st.data())
def test_matmul_of_doubles(data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    left, right = data.draw(product_shapes())
    given = {
        "a": data.draw(matrices(left, constants, np.float64)),
        "b": data.draw(matrices(right, constants, np.float64)),
    }
    check(onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), given, constants=constants, rtol=1e-9, atol=1e-9)


@examples(20)
@given(data=st.data())
def test_matmul_of_integers(data: st.DataObject) -> None:
    constants = data.draw(st.integers(1, 2))
    given = {}
    for name, shape in zip("ab", data.draw(product_shapes()), strict=True):
        given[name] = data.draw(operands(shape, constants=constants, low=-9, high=9))
        given[name].array = np.asarray(np.rint(given[name].array), np.int64)
    check(onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), given, constants=constants, rtol=0, atol=0)


@examples(30)
@given(data=st.data(), turned=st.tuples(st.booleans(), st.booleans()), alpha=st.sampled_from([1.0, 0.25, -2.0]))
def test_fused_matmul(data: st.DataObject, turned: tuple[bool, bool], alpha: float) -> None:
    constants = data.draw(st.integers(1, 2))
    shapes = data.draw(product_shapes().filter(lambda found: min(map(len, found)) > 1))
    given = {}
    for name, shape, swap in zip("ab", shapes, turned, strict=True):
        given[name] = data.draw(matrices((*shape[:-2], shape[-1], shape[-2]) if swap else shape, constants))
    node = onnx.helper.make_node(
        "FusedMatMul", ["a", "b"], ["y"], domain="com.microsoft", alpha=alpha,
        transA=int(turned[0]), transB=int(turned[1]),
    )  # fmt: skip
    check(node, given, constants=constants, domains={"com.microsoft": 1})


@st.composite
def gemms(draw: st.DrawFn, dtype: npt.DTypeLike = np.float32) -> tuple[dict[str, float], dict[str, Operand], int]:
    """Draw the attributes and operands of a Gemm, and the number of constants."""
    constants = draw(st.integers(1, 2))
    rows, shared, columns = (draw(st.integers(1, 6)) for _ in range(3))
    attributes = {}
    for name, values in (("transA", [0, 1]), ("transB", [0, 1]), ("alpha", [0.25, -2.0]), ("beta", [0.0, 0.5, -3.0])):
        if draw(st.booleans()):
            attributes[name] = draw(st.sampled_from(values))
    left, right = (rows, shared), (shared, columns)
    given = {
        "a": draw(matrices(left[::-1] if attributes.get("transA") else left, constants, dtype)),
        "b": draw(matrices(right[::-1] if attributes.get("transB") else right, constants, dtype)),
    }
    shape = draw(st.sampled_from([None, (), (1,), (columns,), (1, columns), (rows, 1), (rows, columns), (1, 1)]))
    if shape is not None:
        given["c"] = draw(matrices(shape, constants, dtype))
    return attributes, given, constants


@examples(70)
@given(case=gemms(), opset=st.sampled_from([11, 13, 18]))
def test_gemm(case: tuple[dict[str, float], dict[str, Operand], int], opset: int) -> None:
    attributes, given, constants = case
    node = onnx.helper.make_node("Gemm", list(given), ["y"], **attributes)
    check(node, given, opset=opset, constants=constants)


@examples(20)
@given(case=gemms(np.float64))
def test_gemm_of_doubles(case: tuple[dict[str, float], dict[str, Operand], int]) -> None:
    attributes, given, constants = case
    node = onnx.helper.make_node("Gemm", list(given), ["y"], **attributes)
    check(node, given, constants=constants, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("activation", ["Relu", "Sigmoid", "Tanh", "LeakyRelu"])
@examples(30)
@given(case=gemms())
def test_fused_gemm(activation: str, case: tuple[dict[str, float], dict[str, Operand], int]) -> None:
    attributes, given, constants = case
    ruled = activation != "LeakyRelu"  # the one with a parameter runs as it is
    if not ruled:
        attributes = attributes | {"activation_alpha": 0.2}
    node = onnx.helper.make_node(
        "FusedGemm", list(given), ["y"], domain="com.microsoft", activation=activation, **attributes
    )
    try:
        lowered = check(node, given, constants=constants, domains={"com.microsoft": 1}, ruled=ruled)
    except SeparateRuns:  # ONNX infers no shapes of contributed operators
        assert not ruled
        assert constants == 2
    else:
        assert bool(lowered.without_rule) is not ruled


def test_a_wide_layer_computes_one_feature() -> None:
    x = Operand(
        np.random.default_rng(0).random((2, 1), np.float32), (Partition.discrete(2), Partition.one(256)), weighted=True
    )
    lowered = check(
        onnx.helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), {"x": x, "w": weight((512, 256), [0.5])}
    )
    assert lowered.values[0].counts == (2, 1)
    assert not any(node.op_type in ("Gemm", "MatMul") for node in lowered.graph.nodes)


def test_a_class_counts_as_often_as_it_has_indices() -> None:
    a = Operand(np.array([[1.0, 10.0]], np.float32), (Partition.one(1), Partition.of([0, 0, 0, 1])))
    b = Operand(np.array([[1.0], [2.0]], np.float32), (Partition.of([0, 0, 1, 1]), Partition.one(1)))
    lowered = check(onnx.helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": a, "b": b})
    assert lowered.arrays[0][0].item() == 1 + 1 + 2 + 20
