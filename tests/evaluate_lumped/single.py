"""One operator through the evaluator's table, beside what onnx's reference evaluator makes of it in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator
from scipy import special

from epsinas_onnx.evaluate_lumped.call import Call
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.table import find_entry
from epsinas_onnx.evaluate_lumped.value import Operand, Pair, Value, given
from epsinas_onnx.lump.graph import Node
from epsinas_onnx.lump.value import Tensor

Array = npt.NDArray[Any]
DEFINED: dict[str, Callable[[Array, str], Array]] = {
    "Erf": lambda x, _: special.erf(x),
    "Gelu": lambda x, kind: (
        x * special.ndtr(x) if kind == "none" else x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    ),
    "HardSwish": lambda x, _: x * np.clip(x / 6 + 0.5, 0, 1),
    "Selu": lambda x, _: SELU[1] * np.where(x < 0, SELU[0] * np.expm1(x), x),
}


def _normalised(x: Array, axes: tuple[int, ...], scale: Array, shift: Array) -> Array:
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + EPSILON) * scale + shift


def _column(array: Array) -> Array:
    return array.reshape(-1, 1, 1)


EPSILON = 1e-5
FROM_ALL: dict[str, Callable[[Sequence[Any]], Array]] = {
    # without stored statistics there is no such operator in ONNX, RMSNormalization is younger than OPSET, and the
    # reference evaluator has the others in float32 or not at all
    "BatchNormalization": lambda o: _normalised(o[0], (0, 2, 3), _column(o[1]), _column(o[2])),
    "RMSNormalization": lambda o: o[0] / np.sqrt(np.mean(o[0] ** 2, -1, keepdims=True) + EPSILON) * o[1],
    "LayerNormalization": lambda o: _normalised(o[0], (-1,), o[1], o[2]),
    "GroupNormalization": lambda o: np.concatenate(
        [_normalised(x, (1, 2, 3), o[1][i], o[2][i]) for i, x in enumerate(np.split(o[0], len(o[1]), axis=1))], axis=1
    ),
    "MeanVarianceNormalization": lambda o: (
        (o[0] - o[0].mean((0, 2, 3), keepdims=True)) / (o[0].std((0, 2, 3), keepdims=True) + 1e-9)
    ),
    "LRN": lambda o: np.stack(
        [
            o[0][:, c] / (1.5 + 0.5 / 3 * np.sum(o[0][:, max(0, c - 1) : c + 2] ** 2, axis=1)) ** 0.75
            for c in range(o[0].shape[1])
        ],
        axis=1,
    ),
}
SELU = (1.67326319217681884765625, 1.05070102214813232421875)
OPSET = 20


def call_of(op_type: str, operands: Sequence[Array | None], outputs: int, attributes: dict[str, Any]) -> Call:
    """Return a node of the lowered graph; operands of integers are stored."""
    inputs = [
        None if array is None else Tensor(f"x{index}", array.shape, ir.DataType.from_numpy(array.dtype))
        for index, array in enumerate(operands)
    ]
    made = tuple(Tensor(f"y{index}", None, ir.DataType.DOUBLE) for index in range(outputs))
    stored = [array if array is not None and array.dtype.kind in "iu" else None for array in operands]
    return Call(Node(op_type, "", tuple(inputs), made, attributes, ""), stored, {"": OPSET})


def exactly(call: Call, operands: Sequence[Operand | None]) -> list[Value | Pair]:
    """Return what the operator's rule makes of values."""
    entry = find_entry("", call.op_type)
    assert entry is not None
    with np.errstate(all="ignore"):
        return [made for made in entry.rule(call)(operands) if made is not None]


def plainly(call: Call, operands: Sequence[Array | None]) -> list[Array]:
    """Return what the operator's kernel makes of plain arrays."""
    entry = find_entry("", call.op_type)
    assert entry is not None
    made = entry.kernel(call)(*operands)
    return [np.asarray(array) for array in (made if isinstance(made, tuple | list) else (made,))]


def reference(call: Call, operands: Sequence[Array | None]) -> list[Array]:
    """Return what onnx's reference evaluator makes of plain arrays."""
    names = ["" if array is None else f"x{index}" for index, array in enumerate(operands)]
    outputs = [tensor.name for tensor in call.node.outputs]
    proto = onnx.helper.make_node(call.op_type, names, outputs, **call.node.attributes)
    feeds = {name: array for name, array in zip(names, operands, strict=True) if array is not None}
    if call.op_type in DEFINED:  # onnx has these in float32, or as functions
        return [DEFINED[call.op_type](feeds["x0"], call.attribute("approximate", "none"))]
    if call.op_type in FROM_ALL and len(operands) < 5:
        return [FROM_ALL[call.op_type](operands)]
    with np.errstate(all="ignore"):
        return [np.asarray(array) for array in ReferenceEvaluator(proto, opsets={"": OPSET}).run(None, feeds)]


def value(base: Array, deviation: Array, exponent: int = 0, base_exponent: int = 0) -> Value:
    """Return 2^base_exponent * base + 2^exponent * deviation."""
    shape = np.broadcast_shapes(base.shape, deviation.shape)
    return Value(
        shape,
        Scaled(base, 1.0, base_exponent) if base.any() else None,
        Scaled(deviation, 1.0, exponent) if deviation.any() else None,
    )


def split(reference: Array, actual: Array) -> Operand:
    """Return an operand whose value for the reference sample is one array, for the samples another."""
    return given(reference, actual)
