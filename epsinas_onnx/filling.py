"""Puts weights into a model: seeded initialisations by role, or one constant, so that a weightless model runs."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.learned import Learned, learned_tensors
from epsinas_onnx.graph.load import ModelSource, load_model, load_proto
from epsinas_onnx.graph.roles import Role, decide_roles, fan
from epsinas_onnx.graph.shapes import infer_shapes
from epsinas_onnx.graph.static import StaticValues, proto_bodies
from epsinas_onnx.rewriting import write_model
from epsinas_onnx.runtime.session import INITIALIZERS_ALONE
from epsinas_onnx.stripping import stored_constant

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


def fill(
    model: ModelSource,
    init: str = "kaiming",
    *,
    value: float = 0.01,
    seed: int = 0,
    output: str | os.PathLike[str] | None = None,
) -> onnx.ModelProto:
    """Return `model` with every weight stored in it, drawn anew: a runnable model of this architecture.

    Weights with fewer than two axes are scales and become 1; biases become 0, running means 0 and variances 1;
    embeddings are standard normal; integers of quantised weights are drawn from their whole range. Tensors that nothing
    learns stay as they are.

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
        UsageError: the initialisation is unknown.
        ModelError: the model cannot be read, the file not be written, or the weights are too many for a model without
            a file.

    Source:
        He et al. (2015), Glorot and Bengio (2010).

    Examples:
        >>> runs = fill("models/mlp.onnx", "xavier", seed=1)
        >>> [list(tensor.dims) for tensor in runs.graph.initializer][:2]
        [[512, 784], [512]]
    """
    if init not in set(Initialisation):
        raise UsageError(f"there is no initialisation {init!r}; choose one of {', '.join(Initialisation)}")
    loaded = load_model(model)
    proto = load_proto(model, loaded.name)
    infer_shapes(loaded.model)
    static = StaticValues.of(loaded.model)
    learned = learned_tensors(loaded.model, decide_roles(loaded.model, loaded.name, None, static), static)
    draw = _Draw(Initialisation(init), value, seed)
    _fill_graph(proto.graph, learned, draw, None)
    proto.ir_version = max(proto.ir_version, INITIALIZERS_ALONE)
    if draw.bytes > LARGEST:
        if output is None:
            raise ModelError(f"{loaded.name}: {draw.bytes:,} bytes of weights need a file: name one with output")
        _write_beside(proto, Path(output))
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
        array = np.asarray(self._values(name, dims, kind, learned)).astype(kind)
        self.bytes += array.nbytes
        tensor = numpy_helper.from_array(array, name)
        tensor.data_type = dtype
        return tensor

    def _values(self, name: str, dims: tuple[int, ...], kind: np.dtype[Any], learned: Learned) -> Array:
        use = learned.use
        rng = np.random.default_rng([self.seed, *name.encode()])
        if np.issubdtype(kind, np.integer):
            limits = np.iinfo(kind)
            if len(dims) < 2:  # zero points
                return np.full(dims, 0 if limits.min < 0 else (limits.max + 1) // 2)
            return rng.integers(limits.min, limits.max, dims, endpoint=True)
        if use.role is Role.EMBEDDING:
            return rng.standard_normal(dims)
        if use.role is Role.STATISTICS:
            return np.full(dims, float(use.slot == 4))
        if use.role is Role.BIAS:
            return np.zeros(dims)
        if self.init is Initialisation.CONSTANT:
            return np.full(dims, self.value)
        if len(dims) < 2:
            return np.ones(dims)
        inputs, outputs = fan(use)
        match self.init:
            case Initialisation.KAIMING:
                return rng.standard_normal(dims) * math.sqrt(2 / inputs)
            case Initialisation.XAVIER:
                limit = math.sqrt(6 / (inputs + outputs))
                return rng.uniform(-limit, limit, dims)
        return rng.standard_normal(dims) * _NORMAL_DEVIATION


def _fill_graph(
    graph: onnx.GraphProto, learned: Mapping[str, Learned], draw: _Draw, outer: Mapping[str, tuple[int, ...]] | None
) -> None:
    known = {**(outer or {}), **{t.name: _ints(t) for t in graph.initializer if t.data_type == TensorProto.INT64}}
    initializers, sparse, nodes, freed = [], [], [], set()
    for tensor in graph.initializer:
        found = learned.get(tensor.name)
        filled = found and draw.tensor(tensor.name, tuple(tensor.dims), tensor.data_type, found)
        initializers.append(filled or tensor)
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
        made = _made(node, known)
        found = learned.get(node.output[0]) if made and node.output else None
        if made is not None and found is not None:
            initializers.append(draw.tensor(node.output[0], made[0], made[1], found))
            freed.update(node.input)
            continue
        for body in proto_bodies(node):
            _fill_graph(body, learned, draw, known)
        nodes.append(node)
    used = {value.name for value in graph.output}.union(*map(_reads, nodes))
    kept = [t for t in initializers if t.name in used or t.name not in freed]
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


def _made(node: onnx.NodeProto, known: Mapping[str, tuple[int, ...]]) -> tuple[tuple[int, ...], int] | None:
    """Return the shape and element type of what a Constant or ConstantOfShape makes; None for other nodes."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Constant", "ConstantOfShape"):
        return None
    if node.op_type == "Constant":
        return stored_constant(node)
    value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
    dims = known.get(node.input[0])
    return None if dims is None else (dims, TensorProto.FLOAT if value is None else value.data_type)


def _ints(tensor: onnx.TensorProto) -> tuple[int, ...]:
    if len(tensor.dims) != 1 or tensor.data_location == TensorProto.EXTERNAL:
        return ()
    return tuple(int(entry) for entry in numpy_helper.to_array(tensor))


def _write_beside(proto: onnx.ModelProto, output: Path) -> None:
    data = f"{output.name}.data"
    output.with_name(data).unlink(missing_ok=True)  # onnx appends to a file that is there
    try:
        onnx.save_model(proto, str(output), save_as_external_data=True, location=data)
    except OSError as error:
        raise ModelError(f"{output}: cannot be written: {error.strerror or error}") from None
