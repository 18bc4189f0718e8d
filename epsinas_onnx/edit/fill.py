"""Puts weights into a model: seeded initialisations by role, or one constant, so that a weightless model runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from epsinas_onnx.edit.save import write_model, write_with_data
from epsinas_onnx.edit.strip import StoredConstant, stored_constant
from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.analysis.learned import Learned, learned_tensors
from epsinas_onnx.graph.analysis.roles import Role, decide_roles, fan
from epsinas_onnx.graph.load import ModelSource, load_model, load_proto, without_storing_functions
from epsinas_onnx.graph.operators import Part
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.traversal import StaticValues, proto_bodies
from epsinas_onnx.runtime.session import INITIALIZERS_ALONE
from epsinas_onnx.scoring.options import check_seed

Array = npt.NDArray[Any]
LARGEST = 1_900_000_000
"""Bytes of weights from which they go into a file beside the model: a protobuf holds no more than 2 GiB."""


class Initialisation(StrEnum):
    """How weights are drawn; biases become 0, scales of normalisations 1, statistics 0 and 1, whatever is chosen."""

    KAIMING = "kaiming"
    """Normal with variance 2 / fan-in (He et al., 2015)."""
    XAVIER = "xavier"
    """Uniform with variance 2 / (fan-in + fan-out) (Glorot and Bengio, 2010)."""
    NORMAL = "normal"
    """Normal with a standard deviation of 0.02."""
    CONSTANT = "constant"


_NORMAL_DEVIATION = 0.02
_FITTED = frozenset({Part.SCALE, Part.ZERO})
"""What belongs to integers that are drawn anew, and fits them as it is where it is stored."""


def fill(
    model: ModelSource,
    init: str = "kaiming",
    *,
    value: float = 0.01,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """Return `model` with every weight stored in it, drawn anew: a runnable model of this architecture.

    Vectors that are no matrix where they are used are scales and become 1; biases become 0, running means 0 and
    variances 1; embeddings are standard normal; integers of packed weights are drawn from their whole range. Tensors
    that nothing learns stay as they are.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        init: how weights are drawn: `kaiming` (normal, variance 2 / fan-in), `xavier` (uniform, variance
            2 / (fan-in + fan-out)), `normal` (standard deviation 0.02), or `constant`.
        value: what `constant` sets every weight to.
        seed: the same seed gives the same weights, tensor by tensor, whatever else is in the model.
        output: also written to this path; weights of more than 1.9 GB go into `OUTPUT.data` beside it.

    Returns:
        The model with its weights.

    Raises:
        UsageError: the initialisation is unknown, or the seed negative.
        ModelError: the model cannot be read, or the weights are too many for a model without a file.
        OutputError: the file cannot be written.

    Source:
        He et al. (2015), Glorot and Bengio (2010).

    Examples:
        >>> runs = fill("models/mlp.onnx", "xavier", seed=1)
        >>> [list(tensor.dims) for tensor in runs.graph.initializer][:2]
        [[512, 784], [512]]
    """
    if init not in set(Initialisation):
        raise UsageError(f"there is no initialisation {init!r}; choose one of {', '.join(Initialisation)}")
    check_seed(seed)
    loaded = load_model(model)
    proto = without_storing_functions(load_proto(model, loaded.name), loaded.name)
    infer_shapes(loaded.model)
    static = StaticValues.of(loaded.model)
    learned = learned_tensors(loaded.model, decide_roles(loaded.model, loaded.name, None, static), static)
    draw = _Draw(Initialisation(init), value, seed)
    _fill_graph(proto.graph, learned, draw, None)
    proto.ir_version = max(proto.ir_version, INITIALIZERS_ALONE)
    if draw.bytes > LARGEST:
        if output is None:
            raise ModelError(f"{loaded.name}: {draw.bytes:,} bytes of weights need a file: name one with output")
        write_with_data(proto, output)
    else:
        write_model(proto, output)
    return proto


class _Draw:
    """Draws tensors; each has a seed of its own, made of its name."""

    def __init__(self, init: Initialisation, value: float, seed: int) -> None:
        self.init, self.value, self.seed = init, value, seed
        self.bytes = 0

    def tensor(self, name: str, dims: tuple[int, ...], dtype: int, learned: Learned) -> onnx.TensorProto:
        kind = helper.tensor_dtype_to_np_dtype(dtype)
        array = np.asarray(self._values(name, dims, ir.DataType(dtype), learned)).astype(kind)
        self.bytes += array.nbytes
        tensor = numpy_helper.from_array(array, name)
        tensor.data_type = dtype
        return tensor

    def _values(self, name: str, dims: tuple[int, ...], kind: ir.DataType, learned: Learned) -> Array:
        use = learned.use
        vector = len(dims) < 2 and sum(dim > 1 for dim in use.shape or ()) < 2
        rng = np.random.default_rng([self.seed, *name.encode()])
        if learned.part is Part.SCALE:  # of integers that are drawn from their whole range
            return np.full(dims, math.sqrt(24 / fan(use)[0]) / 2**learned.bits)
        if kind.is_integer():
            if learned.part is Part.ZERO or (learned.part is None and vector):  # the middle of the range
                return np.full(dims, 0 if kind.is_signed() else _middle(kind.bitwidth, learned.bits))
            lowest = -(1 << (kind.bitwidth - 1)) if kind.is_signed() else 0
            return rng.integers(lowest, lowest + (1 << kind.bitwidth), dims)
        if learned.part is Part.ZERO:
            return np.full(dims, 2.0 ** (learned.bits - 1))
        if kind.bitwidth <= 8:  # floats of so few bits are scaled where they are used
            return rng.standard_normal(dims)
        if use.role is Role.EMBEDDING:
            return rng.standard_normal(dims)
        if use.role is Role.STATISTICS:
            return np.full(dims, float(use.slot == 4))
        if use.role is Role.BIAS:
            return np.zeros(dims)
        if self.init is Initialisation.CONSTANT:
            return np.full(dims, self.value)
        if vector:
            return np.ones(dims)
        inputs, outputs = fan(use)
        match self.init:
            case Initialisation.KAIMING:
                return rng.standard_normal(dims) * math.sqrt(2 / inputs)
            case Initialisation.XAVIER:
                limit = math.sqrt(6 / (inputs + outputs))
                return rng.uniform(-limit, limit, dims)
        return rng.standard_normal(dims) * _NORMAL_DEVIATION


def _middle(width: int, bits: int) -> int:
    """Return as many middles of `bits` bits as an unsigned integer of `width` bits holds, side by side."""
    return sum(1 << (start + bits - 1) for start in range(0, width - bits + 1, bits))


def _fill_graph(
    graph: onnx.GraphProto, learned: Mapping[str, Learned], draw: _Draw, outer: Mapping[str, tuple[int, ...]] | None
) -> None:
    known = {**(outer or {}), **{t.name: _ints(t) for t in graph.initializer if t.data_type == TensorProto.INT64}}
    initializers, sparse, nodes, freed = [], [], [], set()
    singles = {tensor.name: tensor.data_type for tensor in graph.initializer}
    for tensor in graph.initializer:
        found = learned.get(tensor.name)
        if found is None or found.part in _FITTED:
            initializers.append(tensor)
        else:
            initializers.append(draw.tensor(tensor.name, tuple(tensor.dims), tensor.data_type, found))
    for one in graph.sparse_initializer:
        found = learned.get(one.values.name)
        if found is None:
            sparse.append(one)
        else:
            initializers.append(draw.tensor(one.values.name, tuple(one.dims), one.values.data_type, found))
    stored = {tensor.name for tensor in graph.initializer}
    is_body = outer is not None  # it may call what it is fed as something outside is called
    inputs = [] if is_body else list(graph.input)
    supplied = [value for value in inputs if value.name in learned and value.name not in stored]
    for value in supplied:
        kind = value.type.tensor_type
        dims = tuple(dim.dim_value for dim in kind.shape.dim)
        initializers.append(draw.tensor(value.name, dims, kind.elem_type, learned[value.name]))
        graph.input.remove(value)
    for node in graph.node:
        made = _made(node, known, singles)
        found = learned.get(node.output[0]) if made and node.output else None
        if node.op_type == "Constant" and made is not None:
            singles[node.output[0]] = made.data_type
            if found is not None and found.part in _FITTED:
                found = None
        if made is not None and found is not None:
            initializers.append(draw.tensor(node.output[0], made.dims, made.data_type, found))
            freed.update(node.input)
            continue
        for body in proto_bodies(node):
            _fill_graph(body, learned, draw, known)
        nodes.append(node)
    used = {value.name for value in graph.output}.union(*map(_reads, nodes))
    gone = freed - used
    kept = [t for t in initializers if t.name not in gone]
    nodes = [node for node in nodes if node.op_type != "Constant" or node.output[0] not in gone]
    for field, entries in (("initializer", kept), ("sparse_initializer", sparse), ("node", nodes)):
        copies: list[Any] = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
        graph.ClearField(field)
        getattr(graph, field).extend(copies)


def _reads(node: onnx.NodeProto) -> set[str]:
    """Return what a node reads, in its bodies too."""
    bodies = proto_bodies(node)
    return {*node.input, *(v.name for body in bodies for v in body.output)}.union(
        *(_reads(inner) for body in bodies for inner in body.node)
    )


def _made(
    node: onnx.NodeProto, known: Mapping[str, tuple[int, ...]], singles: Mapping[str, int]
) -> StoredConstant | None:
    """Return the shape and element type of what a Constant, a ConstantOfShape or a Tile of one number makes.

    known: lists of integers, by name. singles: element types of what is stored, by name.
    """
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Constant":
        return stored_constant(node)
    if node.op_type == "ConstantOfShape":
        value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
        dims = known.get(node.input[0])
        return None if dims is None else StoredConstant(dims, TensorProto.FLOAT if value is None else value.data_type)
    if node.op_type == "Tile" and len(node.input) == 2 and {*node.input} <= {*known, *singles}:
        return StoredConstant(known[node.input[1]], singles[node.input[0]])
    return None


def _ints(tensor: onnx.TensorProto) -> tuple[int, ...]:
    if len(tensor.dims) != 1 or tensor.data_location == TensorProto.EXTERNAL:
        return ()
    return tuple(int(entry) for entry in numpy_helper.to_array(tensor))
