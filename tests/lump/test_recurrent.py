"""RNN, GRU and LSTM of one constant equal the operator on expanded operands, whatever starts apart."""

from __future__ import annotations

import numpy as np
import onnx
from hypothesis import given
from hypothesis import strategies as st

from epsinas_onnx.lump.partition import Partition
from tests.lump.harness import Operand, check, examples, known, operands, weight

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
CONSTANTS = (0.2, 0.5)


@st.composite
def layers(draw: st.DrawFn) -> tuple[onnx.NodeProto, dict[str, Operand], int]:
    """Draw a recurrent layer with its operands and the number of constants."""
    op_type = draw(st.sampled_from(list(GATES)))
    direction = draw(st.sampled_from(["forward", "reverse", "bidirectional"]))
    directions = 2 if direction == "bidirectional" else 1
    steps, batch, width, hidden = (draw(st.integers(1, high)) for high in (4, 3, 4, 5))
    constants = draw(st.integers(1, 2))
    rows = GATES[op_type] * hidden
    given = {
        "x": draw(operands([steps, batch, width], constants=constants)),
        "w": weight((directions, rows, width), CONSTANTS[:constants]),
        "r": weight((directions, rows, hidden), CONSTANTS[:constants]),
    }
    names = ["x", "w", "r"]
    if draw(st.booleans()):
        given["b"] = draw(operands([directions, 2 * rows], constants=constants))
    if draw(st.booleans()):
        given["lengths"] = known([draw(st.integers(1, steps)) for _ in range(batch)], np.int32)
    if draw(st.booleans()):
        given["h"] = draw(operands([directions, batch, hidden], constants=constants))
        if op_type == "LSTM":
            given["c"] = draw(operands([directions, batch, hidden], constants=constants))
    names = ["x", "w", "r", *(name if name in given else "" for name in ("b", "lengths", "h", "c"))]
    while not names[-1]:
        names.pop()
    attributes = {"hidden_size": hidden, "direction": direction}
    if op_type == "GRU" and draw(st.booleans()):
        attributes["linear_before_reset"] = 1
    if draw(st.booleans()):
        attributes["clip"] = 0.7
    outputs = ["y", "y_h", "y_c"][: 3 if op_type == "LSTM" else 2]
    return onnx.helper.make_node(op_type, names, outputs, **attributes), given, constants


@examples(50)
@given(case=layers())
def test_recurrent_layers(case: tuple[onnx.NodeProto, dict[str, Operand], int]) -> None:
    node, given, constants = case
    check(node, given, constants=constants)


def test_units_that_start_alike_are_one_class() -> None:
    parts = (Partition.discrete(3), Partition.discrete(2), Partition.one(64))
    x = Operand(np.random.default_rng(0).random((3, 2, 1), np.float32), parts)
    given = {"x": x, "w": weight((1, 4 * 128, 64), [0.01]), "r": weight((1, 4 * 128, 128), [0.01])}
    lowered = check(onnx.helper.make_node("LSTM", list(given), ["y", "y_h", "y_c"], hidden_size=128), given)
    assert [value.counts for value in lowered.values] == [(3, 1, 2, 1), (1, 2, 1), (1, 2, 1)]


def test_units_that_start_apart_stay_apart() -> None:
    parts = (Partition.discrete(1), Partition.discrete(2), Partition.of([0, 0, 1, 1, 1]))
    hidden = Operand(np.random.default_rng(0).random((1, 2, 2), np.float32), parts)
    x = Operand(np.ones((3, 2, 2), np.float32), tuple(map(Partition.discrete, (3, 2, 2))))
    given = {"x": x, "w": weight((1, 5, 2), [0.1]), "r": weight((1, 5, 5), [0.1]), "h": hidden}
    lowered = check(onnx.helper.make_node("RNN", ["x", "w", "r", "", "", "h"], ["y"], hidden_size=5), given)
    assert lowered.values[0].counts == (3, 1, 2, 2)
