"""Writes ONNX graphs node by node: named nodes, weightless parameters, one place for opset and IR version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

OPSET = 18
"""Operator set of every graph that this package writes."""
IR_VERSION = 8
"""The oldest IR version that goes with `OPSET`, for the widest choice of runtimes."""


class GraphBuilder:
    """Collects nodes in topological order; every parameter is a `ConstantOfShape`, so no weight bytes are stored.

    Shape vectors are shared by all parameters of one shape, parameters never are: each keeps a name and a node
    of its own. The running statistics of BatchNormalization are shared by width, because at initialisation all
    of them hold the same values and none is a parameter.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {}
        self._filled: dict[tuple[str, tuple[int, ...]], ir.Value] = {}

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        /,
        domain: str = "",
        outputs: int = 1,
        **attributes: object,
    ) -> ir.Value:
        """Append a node called `name` and return its first output, which carries the same name."""
        return self._append(name, (domain, op_type, outputs), inputs, attributes)

    def _append(
        self, name: str, kind: tuple[str, str, int], inputs: Sequence[ir.Value | None], attributes: Mapping[str, object]
    ) -> ir.Value:
        """Do what `op` says; kind: domain, operator and number of outputs."""
        domain, op_type, outputs = kind
        node = ir.Node(
            domain,
            op_type,
            inputs,
            [_attribute(op_type, key, value) for key, value in attributes.items()],
            name=name,
            outputs=[ir.Value(name=name if i == 0 else f"{name}:{i}") for i in range(outputs)],
        )
        self.nodes.append(node)
        return node.outputs[0]

    def int64s(self, values: Sequence[int]) -> ir.Value:
        """Return the int64 vector `values` as an initializer, one per distinct vector."""
        name = "shape_" + "x".join(str(v) for v in values)
        if name not in self.initializers:
            self.initializers[name] = _holding(_vector(name, tuple(values)))
        return self.initializers[name]

    def int64_scalar(self, value: int) -> ir.Value:
        """Return an int64 scalar initializer, one per distinct value."""
        name = f"index_{value}"
        if name not in self.initializers:
            self.initializers[name] = _initializer(name, np.asarray(value, np.int64))
        return self.initializers[name]

    def scalar(self, value: float, name: str) -> ir.Value:
        """Return a float32 scalar initializer."""
        if name not in self.initializers:
            self.initializers[name] = _initializer(name, np.asarray(value, np.float32))
        return self.initializers[name]

    def floats(self, values: npt.ArrayLike, name: str) -> ir.Value:
        """Return a float32 tensor as an initializer."""
        self.initializers[name] = _initializer(name, np.asarray(values, np.float32))
        return self.initializers[name]

    def parameter(self, name: str, shape: Sequence[int], value: float = 1.0) -> ir.Value:
        """Return a float32 parameter of `shape` without bytes: a ConstantOfShape that gives `value`."""
        attributes: dict[str, Any] = {"value": value} if value else {}
        result = self.op("ConstantOfShape", [self.int64s(shape)], name, **attributes)
        self.nodes[-1].name = ""  # the tensor carries the name; twice would be a third of the file
        return result

    def statistics(self, kind: str, value: float, width: int) -> ir.Value:
        """Return the initial running mean or variance of all BatchNormalizations of `width` channels."""
        key = (kind, (width,))
        if key not in self._filled:
            self._filled[key] = self.parameter(f"{kind}_{width}", [width], value)
        return self._filled[key]

    def conv(
        self, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
    ) -> ir.Value:
        """Append a square Conv without bias, zero-padded by `kernel // 2` on every side."""
        return self.op(
            "Conv",
            [x, self.parameter(f"{name}.weight", [outputs, inputs // groups, kernel, kernel])],
            name,
            kernel_shape=[kernel, kernel],
            pads=[kernel // 2] * 4,
            strides=[stride, stride],
            group=groups,
        )

    def batch_norm(self, x: ir.Value, name: str, width: int) -> ir.Value:
        """Append a BatchNormalization (inference form, epsilon 1e-5) over `width` channels."""
        scale = self.parameter(f"{name}.weight", [width])
        shift = self.parameter(f"{name}.bias", [width], 0.0)
        mean = self.statistics("running_mean", 0.0, width)
        variance = self.statistics("running_var", 1.0, width)
        return self.op("BatchNormalization", [x, scale, shift, mean, variance], name, epsilon=1e-5)

    def linear(self, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
        """Append a Gemm with a `[outputs, inputs]` weight and a bias."""
        weight = self.parameter(f"{name}.weight", [outputs, inputs])
        bias = self.parameter(f"{name}.bias", [outputs], 0.0)
        return self.op("Gemm", [x, weight, bias], name, transB=1)

    def model(self, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value], **metadata: str) -> ir.Model:
        """Return the finished model; `metadata` goes into the model's metadata properties."""
        graph = ir.Graph(
            inputs,
            outputs,
            nodes=self.nodes,
            initializers=list(self.initializers.values()),
            opset_imports={"": OPSET},
            name=self.name,
        )
        return ir.Model(graph, ir_version=IR_VERSION, producer_name="epsinas-onnx", metadata_props=metadata)


class SharingBuilder(GraphBuilder):
    """Makes nothing twice: for networks whose weights are all one constant, so that equal layers compute the same.

    Parameters of one shape and value are one initializer, whose numbers are made only if somebody asks for them. A node
    that is there already stands for one that would do the same to the same values, by the name that it has.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._made: dict[tuple[object, ...], ir.Value] = {}

    def _append(
        self, name: str, kind: tuple[str, str, int], inputs: Sequence[ir.Value | None], attributes: Mapping[str, object]
    ) -> ir.Value:
        """Append a node called `name`, unless there is one; return the first output."""
        operands = sorted(inputs, key=id) if kind[:2] == ("", "Add") else inputs
        key = (kind, *operands, *attributes, *map(_hashable, attributes.values()))
        found = self._made.get(key)
        if found is None:
            found = self._made[key] = super()._append(name, kind, inputs, attributes)
        return found

    def parameter(self, name: str, shape: Sequence[int], value: float = 1.0) -> ir.Value:
        """Return a float32 parameter of `shape` that holds `value` everywhere, one per shape and value."""
        tensor = _full(tuple(shape), value)
        if tensor.name not in self.initializers:
            self.initializers[str(tensor.name)] = _holding(tensor)
        return self.initializers[str(tensor.name)]


def tensor_input(name: str, shape: Sequence[int | str], dtype: ir.DataType = ir.DataType.FLOAT) -> ir.Value:
    """Return a graph input; a string in `shape` names a free dimension."""
    return ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))


def typed_output(value: ir.Value, shape: Sequence[int | str]) -> ir.Value:
    """Give `value` the float32 type and the shape that a graph output must declare."""
    value.type = ir.TensorType(ir.DataType.FLOAT)
    value.shape = ir.Shape(shape)
    return value


def _hashable(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _attribute(op_type: str, name: str, value: object) -> ir.Attr:
    value = _hashable(value)
    if isinstance(value, (int, float, str, tuple)):
        return _plain_attribute(op_type, name, value)
    return ir.convenience.convert_attribute(name, value)  # type: ignore[arg-type]


@lru_cache(maxsize=4096, typed=True)
def _plain_attribute(op_type: str, name: str, value: float | str | tuple[Any, ...]) -> ir.Attr:
    """Return an attribute that holds no graph; networks of one space are made of few, which nobody modifies.

    onnx-ir's own conversion would take two thirds of the time that a network takes.
    """
    match value:
        case float() if op_type == "ConstantOfShape":  # the value that it repeats
            return ir.AttrTensor("value", ir.tensor(np.asarray([value], np.float32)))
        case int():
            return ir.AttrInt64(name, value)
        case float():
            return ir.AttrFloat32(name, value)
        case tuple() if all(isinstance(item, int) for item in value):
            return ir.AttrInt64s(name, value)
        case _:
            return ir.convenience.convert_attribute(name, list(value) if isinstance(value, tuple) else value)


def _initializer(name: str, array: np.ndarray) -> ir.Value:
    return _holding(ir.Tensor(array, name=name))


def _holding(tensor: ir.Tensor[Any] | ir.LazyTensor) -> ir.Value:
    return ir.Value(name=tensor.name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)


@lru_cache(maxsize=4096)
def _full(shape: tuple[int, ...], value: float) -> ir.LazyTensor:
    """Return a tensor that holds one number everywhere, which nobody modifies, either."""

    def made() -> ir.Tensor[Any]:
        return ir.Tensor(np.broadcast_to(np.float32(value), shape))

    name = f"parameter_{'x'.join(map(str, shape))}_{value:g}"
    return ir.LazyTensor(made, dtype=ir.DataType.FLOAT, shape=ir.Shape(shape), name=name)


@lru_cache(maxsize=4096)
def _vector(name: str, values: tuple[int, ...]) -> ir.Tensor[Any]:
    """Return a vector; networks of one space are made of few, which nobody modifies."""
    array = np.asarray(values, np.int64)
    array.flags.writeable = False
    return ir.Tensor(array, name=name)
