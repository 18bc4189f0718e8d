"""Finds activation functions by what they compute, however an exporter spelled them, and puts others in their place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from scipy.special import erf

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.evaluate import evaluate

Array = npt.NDArray[Any]
_GRID = np.linspace(-9, 9, 145, dtype=np.float32)
_CLOSE = 2e-3
"""How far apart two spellings of a function may be: the one of GELU with a tanh is 5e-4 away from the other."""
_LONGEST = 12
"""Nodes of the longest spelling that is looked for."""


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * 0.5 * (1 + erf(x / np.sqrt(2))),
    "silu": lambda x: x * _sigmoid(x),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "quickgelu": lambda x: x * _sigmoid(1.702 * x),
    "mish": lambda x: x * np.tanh(np.logaddexp(x, 0)),
    "softplus": lambda x: np.logaddexp(x, 0),
    "tanh": np.tanh,
}
"""What is recognised by its values. A sigmoid is none: it mostly is a gate."""
_OPERATORS = {
    "Relu": "relu", "LeakyRelu": "leakyrelu", "Elu": "elu", "Selu": "selu", "Celu": "celu", "Gelu": "gelu",
    "HardSwish": "hardswish", "Mish": "mish", "Softplus": "softplus", "Tanh": "tanh", "Swish": "silu",
    "FastGelu": "gelu", "QuickGelu": "quickgelu",
}  # fmt: skip
"""Operators that are an activation function whatever their attributes are."""
CHOICES = ("relu", "leakyrelu", "elu", "gelu", "silu", "hardswish")
"""What another activation is replaced by."""
_POINTWISE = frozenset(
    {*_OPERATORS, "Abs", "Add", "Clip", "Div", "Erf", "Exp", "HardSigmoid", "Identity", "Max", "Min", "Mul", "Neg",
     "Pow", "Sigmoid", "Sqrt", "Sub", "Where", "Greater", "Less"}
)  # fmt: skip


@dataclass(frozen=True)
class Site:
    """One use of an activation function. nodes: by name, in order; source and result: values, by name."""

    function: str
    nodes: tuple[str, ...]
    source: str
    result: str


def find_activations(graph: ir.Graph, dynamic: set[ir.Node], imports: dict[str, int]) -> list[Site]:
    """Return where activation functions are, in order; longest spellings first where one holds another."""
    order = {node: index for index, node in enumerate(graph)}
    covered: set[ir.Node] = set()
    sites: list[Site] = []
    for node in reversed(list(graph)):
        if node in covered or node not in dynamic or node.op_type not in _POINTWISE or len(node.outputs) != 1:
            continue
        if node.outputs[0].is_graph_output() or node.outputs[0].dtype not in (None, *FLOATS):
            continue
        found = _largest(node, dynamic, order, imports)
        if found is not None:
            function, cone, source = found
            covered |= cone
            nodes = tuple(str(one.name) for one in sorted(cone, key=order.__getitem__))
            sites.append(Site(function, nodes, str(source.name), str(node.outputs[0].name)))
    return sites[::-1]


def _largest(
    last: ir.Node, dynamic: set[ir.Node], order: dict[ir.Node, int], imports: dict[str, int]
) -> tuple[str, set[ir.Node], ir.Value] | None:
    best = None
    cone = {last}
    while len(cone) <= _LONGEST:
        entering = _entering(cone, dynamic)
        if entering is None:
            break
        if len(entering) == 1 and _is_closed(cone, last):
            function = _name(cone, entering[0], last, order, imports)
            if function is not None:
                best = function, set(cone), entering[0]
        makers = [
            maker for value in entering
            if (maker := value.producer()) is not None and maker.op_type in _POINTWISE and len(maker.outputs) == 1
        ]  # fmt: skip
        if not makers:
            break
        cone.add(max(makers, key=order.__getitem__))
    return best


def _entering(cone: set[ir.Node], dynamic: set[ir.Node]) -> list[ir.Value] | None:
    """Return what nodes read that is not theirs; None where one of them reads more than numbers beside it."""
    found: dict[ir.Value, None] = {}
    for node in cone:
        for value in node.inputs:
            if value is None or value.producer() in cone or _number(value) is not None:
                continue
            if value.producer() not in dynamic and not value.is_graph_input():
                return None
            found[value] = None
    return list(found)


def _number(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the one number that a value is, whatever type it is cast to."""
    maker = value.producer()
    while maker is not None and maker.op_type in ("Cast", "CastLike", "Identity") and maker.inputs[0] is not None:
        value = maker.inputs[0]
        maker = value.producer()
    tensor = value.const_value if value.is_initializer() else None
    return tensor if tensor is not None and tensor.size == 1 else None


def _is_closed(cone: set[ir.Node], last: ir.Node) -> bool:
    return all(
        use.node in cone for node in cone if node is not last for value in node.outputs for use in value.uses()
    ) and not any(value.is_graph_output() for node in cone for value in node.outputs)


def _name(
    cone: set[ir.Node], source: ir.Value, last: ir.Node, order: dict[ir.Node, int], imports: dict[str, int]
) -> str | None:
    if len(cone) == 1 and last.op_type in _OPERATORS:
        return _OPERATORS[last.op_type] if len([v for v in last.inputs if v is not None]) == 1 else None
    values: dict[ir.Value, Array] = {source: _GRID}
    for node in sorted(cone, key=order.__getitem__):
        operands = [
            None if value is None else values[value] if value in values else _constant(value) for value in node.inputs
        ]
        made = evaluate(node, operands, imports, len(_GRID))
        if made is None:
            return None
        values[node.outputs[0]] = np.asarray(made[0])
    result = values[last.outputs[0]]
    if result.shape != _GRID.shape or result.dtype.kind != "f":
        return None
    exact = _GRID.astype(np.float64)
    return next((name for name, f in FUNCTIONS.items() if np.abs(f(exact) - result).max() < _CLOSE), None)


def _constant(value: ir.Value) -> Array | None:
    tensor = _number(value)
    if tensor is None:
        return None
    return np.asarray(tensor.numpy().reshape(-1)[0], np.float32 if tensor.dtype in FLOATS else None)


def write_activation(
    function: str, x: ir.Value, name: str, opset: int, constant: Callable[[float], ir.Value]
) -> Sequence[ir.Node]:
    """Return nodes that compute one of `CHOICES`, the result last, in operators that the operator set has.

    constant: makes a stored number of the type of `x`.
    """
    nodes: list[ir.Node] = []

    def op(kind: str, *inputs: ir.Value, **attributes: float) -> ir.Value:
        node = ir.node(kind, list(inputs), attributes, name=f"{name}/{kind}{len(nodes)}")
        node.outputs[0].name = str(node.name)
        node.outputs[0].type, node.outputs[0].shape = x.type, x.shape
        nodes.append(node)
        return node.outputs[0]

    match function:
        case "relu":
            op("Relu", x)
        case "leakyrelu":
            op("LeakyRelu", x, alpha=0.01)
        case "elu":
            op("Elu", x)
        case "silu":
            op("Mul", x, op("Sigmoid", x))
        case "hardswish" if opset >= 14:
            op("HardSwish", x)
        case "hardswish":
            op("Mul", x, op("HardSigmoid", x, alpha=1 / 6, beta=0.5))
        case "gelu" if opset >= 20:
            op("Gelu", x)
        case "gelu":
            scaled = op("Add", op("Erf", op("Mul", x, constant(2**-0.5))), constant(1.0))
            op("Mul", op("Mul", x, constant(0.5)), scaled)
        case _:
            raise ValueError(f"there is no activation {function!r}; choose one of {', '.join(CHOICES)}")
    return nodes
