"""Finds inputs that are weights: models exported without their parameters, which expect them as inputs."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.analysis.learned import learned_tensors
from epsinas_onnx.graph.analysis.roles import decide_roles
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.external_data import WITHOUT_DATA
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.traversal import ARITHMETIC, LAYOUT, StaticValues

_PARAMETER = re.compile(
    r"weight|bias|kernel|gamma|beta(?!s)|running_(mean|var)|moving_(mean|variance)|"
    r"^onnx::(Conv|ConvTranspose|MatMul|Gemm|LSTM|GRU|RNN|Add|Mul)_\d+$",
    re.IGNORECASE,
)
"""What frameworks call parameters; `onnx::Conv_27` is PyTorch's name for one that it computed."""

_SIGNAL_FIRST = frozenset(
    {"Conv", "ConvTranspose", "DeformConv", "RNN", "GRU", "LSTM", "BatchNormalization", "InstanceNormalization",
     "LayerNormalization", "GroupNormalization", "RMSNormalization", "PRelu"}
)  # fmt: skip
"""Operators whose first operand is the signal and whose next ones are weights, biases or statistics."""
_PARAMETERS_UNTIL = {"RNN": 3, "GRU": 3, "LSTM": 3, "BatchNormalization": 4, "DeformConv": 1, "PRelu": 1}


@dataclass(frozen=True)
class Supplied:
    """The inputs that are weights. names: in the order of the file."""

    names: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return what a reader of the score should know."""
        if not self.names:
            return []
        few = ", ".join(repr(name) for name in self.names[:3]) + (", ..." if len(self.names) > 3 else "")
        plural = "s are weights" if len(self.names) > 1 else " is a weight"
        return [f"{len(self.names)} input{plural} ({few}) and treated as stored; name one with --shape to feed it"]


def store_supplied(model: ir.Model, name: str, named_inputs: Collection[str] = ()) -> Supplied:
    """Turn the inputs of `model` that are weights into initializers without data, in place.

    An input is a weight when it holds floats of a fixed shape, when its name or its place in a convolution, a
    recurrent layer or a normalisation says so, and when it would be learned wherever it is used if it were stored.
    Inputs in `named_inputs` stay inputs, and so does every input of a model that would have none left.
    """
    graph = model.graph
    open_inputs = [value for value in graph.inputs if value.name not in graph.initializers]
    candidates = [value for value in open_inputs if value.name not in named_inputs and _may_be_weight(value)]
    certain = [value for value in candidates if _PARAMETER.search(str(value.name)) or _in_weight_slot(value)]
    if not certain or len(certain) == len(open_inputs):
        return Supplied()
    chosen = candidates if len(candidates) < len(open_inputs) else certain
    chosen = [value for value in chosen if not _is_signal(value)]
    _store(graph, chosen)
    while chosen:
        probe = model.clone()  # shapes that are inferred here must not outlive the choice of a minibatch
        infer_shapes(probe)
        static = StaticValues.of(probe)
        learned = learned_tensors(probe, decide_roles(probe, name, None, static), static)
        others = [value for value in chosen if value.name not in learned]
        if not others:
            break
        for value in others:
            del graph.initializers[str(value.name)]
            value.const_value = None
            del value.meta[WITHOUT_DATA]
        graph.inputs[:] = [value for value in open_inputs if value.name not in graph.initializers]
        chosen = [value for value in chosen if value not in others]
    return Supplied(tuple(str(value.name) for value in chosen))


def _may_be_weight(value: ir.Value) -> bool:
    return (
        isinstance(value.type, ir.TensorType)
        and value.dtype in FLOATS
        and value.shape is not None
        and len(value.shape) > 0
        and all(isinstance(dim, int) and dim > 0 for dim in value.shape)
    )


def _in_weight_slot(value: ir.Value) -> bool:
    """Whether every use of a value, laid out anew or put together with others, is as a weight of a layer."""
    return bool(value.uses()) and all(_is_weight_slot(usage.node, usage.idx) for usage in value.uses())


def _is_weight_slot(node: ir.Node, slot: int) -> bool:
    if node.op_type in _SIGNAL_FIRST:
        return 1 <= slot <= _PARAMETERS_UNTIL.get(node.op_type, 2)
    moves = node.op_type in ARITHMETIC - {"MatMul"} or (node.op_type in LAYOUT and slot == 0)
    return moves and all(_in_weight_slot(output) for output in node.outputs)


def _is_signal(value: ir.Value) -> bool:
    """Whether a layer takes a value as what it works on."""
    return any(usage.node.op_type in _SIGNAL_FIRST and usage.idx == 0 for usage in value.uses())


def _store(graph: ir.Graph, values: Collection[ir.Value]) -> None:
    chosen = set(values)
    graph.inputs[:] = [value for value in graph.inputs if value not in chosen]
    for value in values:
        assert value.shape is not None
        assert value.dtype is not None
        dims = tuple(int(dim) for dim in value.shape)  # type: ignore[arg-type]
        kind = value.dtype.numpy()
        value.const_value = ir.LazyTensor(
            lambda dims=dims, kind=kind: ir.tensor(np.zeros(dims, kind)),  # type: ignore[misc]
            dtype=value.dtype,
            shape=ir.Shape(dims),
            name=value.name,
        )
        value.meta[WITHOUT_DATA] = True
        graph.register_initializer(value)
