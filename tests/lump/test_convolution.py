"""Convolutions of one constant equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Operand, check, examples, operands, weight

_CONSTANTS = (0.3, 1.5)


@st.composite
def convolutions(draw: st.DrawFn, op_type: str) -> tuple[onnx.NodeProto, dict[str, Operand], int]:
    """Draw a convolution with its operands and the number of constants."""
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    width, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    strides = [draw(st.integers(1, 2)) for _ in range(rank)]
    dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
    space = [draw(st.integers(dilation * (size - 1) + 1, 7)) for size, dilation in zip(kernel, dilations, strict=True)]
    attributes = {"group": groups, "strides": strides, "dilations": dilations, "kernel_shape": kernel}
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode != "NOTSET":
        attributes["auto_pad"] = mode
        if mode.startswith("SAME"):
            attributes["dilations"] = [1] * rank
    elif op_type == "Conv":
        attributes["pads"] = [draw(st.integers(0, 2)) for _ in range(2 * rank)]
    elif draw(st.booleans()):
        attributes["pads"] = [
            draw(st.integers(0, (size - 1) * d // 2)) for size, d in zip(kernel, dilations, strict=True)
        ] * 2
    constants = draw(st.integers(1, 2))
    shape = (outputs, width // groups, *kernel) if op_type == "Conv" else (width, outputs // groups, *kernel)
    given = {
        "x": draw(operands([draw(st.integers(1, 3)), width, *space], constants=constants, factors=True)),
        "w": weight(shape, _CONSTANTS[:constants]),
    }
    if draw(st.booleans()):
        given["b"] = draw(operands([outputs], constants=constants))
    node = onnx.helper.make_node(op_type, list(given), ["y"], **attributes)
    return node, given, constants


@examples(50)
@given(case=convolutions("Conv"), blocked=st.booleans())
def test_conv(case: tuple[onnx.NodeProto, dict[str, Operand], int], blocked: bool) -> None:
    node, given, constants = case
    check(node, given, constants=constants, blocked=blocked)


@examples(35)
@given(case=convolutions("ConvTranspose"), blocked=st.booleans())
def test_transposed_conv(case: tuple[onnx.NodeProto, dict[str, Operand], int], blocked: bool) -> None:
    node, given, constants = case
    check(node, given, constants=constants, blocked=blocked)


def test_a_wide_convolution_computes_one_channel() -> None:
    parts = (Partition.discrete(2), Partition.one(256), Partition.discrete(5), Partition.discrete(5))
    x = Operand(np.random.default_rng(0).random((2, 1, 5, 5), np.float32), parts, weighted=True)
    node = onnx.helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])
    lowered = check(node, {"x": x, "w": weight((512, 256, 3, 3), [0.5])})
    assert lowered.values[0].counts == (2, 1, 5, 5)
