"""Windows over positions equal the operator on expanded operands, whatever the partitions are."""

from __future__ import annotations

from typing import Any

import onnx
from hypothesis import given
from hypothesis import strategies as st

from tests.lump.harness import Operand, check, examples, operands


@st.composite
def pools(draw: st.DrawFn) -> tuple[onnx.NodeProto, dict[str, Operand], int]:
    """Draw a pooling with its operand and the number of constants."""
    op_type = draw(st.sampled_from(["AveragePool", "MaxPool", "LpPool"]))
    rank = draw(st.sampled_from([1, 2, 2, 3]))
    kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
    attributes: dict[str, Any] = {"kernel_shape": kernel, "strides": [draw(st.integers(1, 2)) for _ in range(rank)]}
    space = [draw(st.integers(size, 6)) for size in kernel]
    if op_type != "LpPool":
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    if op_type == "AveragePool":
        attributes["count_include_pad"] = draw(st.integers(0, 1))
    mode = draw(st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    if mode.startswith("SAME") and any(a > b for a, b in zip(attributes["strides"], kernel, strict=True)):
        mode = "VALID"  # ONNX Runtime refuses the negative pads that this would take
    if mode != "NOTSET" and not attributes.get("ceil_mode"):
        attributes["auto_pad"] = mode
    elif mode == "NOTSET":
        attributes["pads"] = [draw(st.integers(0, size // 2)) for size in kernel] * 2
    constants = draw(st.integers(1, 2))
    given = {
        "x": draw(
            operands(
                [draw(st.integers(1, 3)), draw(st.integers(1, 4)), *space],
                constants=constants,
                factors=op_type != "LpPool",
            )
        )
    }
    return onnx.helper.make_node(op_type, ["x"], ["y"], **attributes), given, constants


@examples(50)
@given(case=pools(), blocked=st.booleans())
def test_pooling(case: tuple[onnx.NodeProto, dict[str, Operand], int], blocked: bool) -> None:
    node, given, constants = case
    check(node, given, constants=constants, blocked=blocked)


@examples(25)
@given(data=st.data(), op_type=st.sampled_from(["GlobalAveragePool", "GlobalMaxPool"]))
def test_pooling_everything(data: st.DataObject, op_type: str) -> None:
    constants = data.draw(st.integers(1, 2))
    space = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    x = data.draw(operands([2, 3, *space], constants=constants, factors=True))
    check(onnx.helper.make_node(op_type, ["x"], ["y"]), {"x": x}, constants=constants)
