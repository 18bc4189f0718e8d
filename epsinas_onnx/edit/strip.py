"""Takes the weights out of a model and leaves everything else: gigabytes become kilobytes, the score stays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from epsinas_onnx._util.fresh import fresh
from epsinas_onnx.edit.anonymise import anonymise as rename
from epsinas_onnx.edit.save import write_model
from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.exporter_traces import EPSILON_METADATA
from epsinas_onnx.graph.analysis.folded_norms import find_folded
from epsinas_onnx.graph.analysis.layers import METADATA, Kind
from epsinas_onnx.graph.analysis.learned import Learned, learned_tensors
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.analysis.roles import FROM_MODEL, GIVEN, METADATA_PREFIX, Role, decide_roles
from epsinas_onnx.graph.analysis.unjudged import unjudged_text
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model, load_proto, without_storing_functions
from epsinas_onnx.graph.operators import Part
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.passes.upgrade_opset import declared_opset
from epsinas_onnx.graph.traversal import StaticValues, proto_bodies
from epsinas_onnx.runtime.session import INITIALIZERS_ALONE

SHAPE_PREFIX = "epsinas.shape."
_SMALL = 16
"""Tensors of fewer entries stay: as a node they would take more bytes."""
_METADATA_FROM = 10  # the IR version that lets nodes carry metadata
_NEVER_BY_SHAPE = frozenset({TensorProto.STRING, TensorProto.UNDEFINED, TensorProto.COMPLEX64, TensorProto.COMPLEX128})


@dataclass(frozen=True)
class _Decisions:
    """What the whole model decides about its parts. learned: by tensor.

    records: what is written into a node's metadata, by its first output.
    """

    learned: Mapping[str, Learned]
    records: Mapping[str, Mapping[str, str]]


def strip(
    model: ModelSource,
    *,
    output: str | os.PathLike[str] | None = None,
    anonymise: bool = False,
    roles: Mapping[str, str] | None = None,
) -> onnx.ModelProto:
    """Return `model` without the values of its weights: the same graph, names, shapes and roles.

    Every tensor that is a weight, a bias, statistics or an embedding wherever it is used becomes a ConstantOfShape of
    the same name, which any runtime runs and `score` treats as it treats the tensor: the score is the same bit for
    bit. Packed weights go with their scales and zero points. What was decided by the traces of an exporter (folded
    BatchNorm) is written into the graph; stack traces and documentation are left out. External data is not read, but
    for tensors that stay.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        output: also written to this path.
        anonymise: whether nodes, values and dimensions get new names, and the producer, descriptions and metadata go
            too. Inputs keep the word of their name that decides what is fed (such as `mask`).
        roles: glob over `NODE:SLOT`, node or tensor name to a role, as for `score`; what they decide is written into
            the graph, so that it need not be told again.

    Returns:
        The model, kilobytes of it.

    Raises:
        UsageError: a role does not exist.
        ModelError: the model cannot be read; or it stores tensors at an operator that nobody judged, and no role says
            whether they are weights.
        OutputError: the file cannot be written.

    Examples:
        >>> light = strip("models/mlp.onnx", anonymise=True)
        >>> print(light.graph.node[0].op_type, light.producer_name or "nobody")
        ConstantOfShape nobody
    """
    loaded = load_model(model)
    proto = without_storing_functions(load_proto(model, loaded.name), loaded.name)
    decisions = _decide(loaded, roles or {})
    stripper = _Stripper(decisions, declared_opset(proto) or 1, loaded.name)
    stripper.graph(proto.graph, ())
    proto.ir_version = max(proto.ir_version, INITIALIZERS_ALONE)
    if stripper.recorded:
        proto.ir_version = max(proto.ir_version, _METADATA_FROM)
    del proto.training_info[:]
    if anonymise:
        rename(proto)
    write_model(proto, output)
    return proto


def _decide(loaded: LoadedModel, roles: Mapping[str, str]) -> _Decisions:
    model = loaded.model
    infer_shapes(model)
    static = StaticValues.of(model)
    judged = find_folded(model, static, Ranks())
    records: dict[str, dict[str, str]] = {}
    for finding in judged:
        if finding.kind is Kind.FOLDED or finding.layer.is_convolution:
            record = records.setdefault(str(finding.layer.node.outputs[0].name), {})
            record[METADATA] = str(finding.kind)
            if finding.kind is Kind.FOLDED and finding.epsilon is not None:
                record[EPSILON_METADATA] = repr(finding.epsilon)
    decisions = decide_roles(model, loaded.name, roles, static)
    missed = [pattern for pattern in decisions.unused_patterns if pattern in roles]
    if missed:
        raise ModelError(f"{loaded.name}: the role pattern {missed[0]!r} matches nothing in this model")
    if decisions.unjudged:
        first = decisions.unjudged[0]
        out = f"take it out with --role '{first.place}=weight', or " if isinstance(first.slot, int) else ""
        raise ModelError(
            f"{loaded.name}: nobody has judged whether {unjudged_text(decisions.unjudged)} is a weight, so it is not "
            f"left in: {out}let it stay with --role '{first.place}=constant'"
        )
    for use in decisions.uses:
        if use.rule.startswith((FROM_MODEL, GIVEN)):  # a pattern over names, which anonymised models lose
            record = records.setdefault(str(use.node.outputs[0].name), {})
            record[f"{METADATA_PREFIX}.{use.slot}"] = str(use.role)
    return _Decisions(learned_tensors(model, decisions, static), records)


class _Stripper:
    """Walks the graphs of a model and replaces what is learned."""

    def __init__(self, decisions: _Decisions, opset: int, name: str) -> None:
        self.decisions, self.opset, self.name = decisions, opset, name
        self.recorded = False

    def graph(self, graph: onnx.GraphProto, outer: Sequence[str], is_body: bool = False) -> None:
        made: list[onnx.NodeProto] = []
        shapes: dict[tuple[int, ...], str] = {}
        taken = {tensor.name for tensor in graph.initializer} | set(outer)
        kept = []
        for tensor in graph.initializer:
            learned = self._learned(tensor.name, tensor.dims)
            if learned is None:
                kept.append(tensor)
            else:
                made += self._filled(tensor.name, tensor.dims, tensor.data_type, learned, shapes, taken)
        sparse = []
        for one in graph.sparse_initializer:
            learned = self._learned(one.values.name, one.dims)
            if learned is None:
                sparse.append(one)
            else:
                made += self._filled(one.values.name, one.dims, one.values.data_type, learned, shapes, taken)
        stored = {tensor.name for tensor in graph.initializer}
        inputs = [] if is_body else list(graph.input)  # a body may call what it is fed as something outside is called
        for value in inputs:  # those of a model that was exported without its parameters
            learned = None if value.name in stored else self.decisions.learned.get(value.name)
            if learned is not None:
                kind = value.type.tensor_type
                dims = [dim.dim_value for dim in kind.shape.dim]
                made += self._filled(value.name, dims, kind.elem_type, learned, shapes, taken)
        nodes = []
        for node in graph.node:
            constant = stored_constant(node)
            learned = None if constant is None else self._learned(node.output[0], constant.dims)
            if constant is not None and learned is not None:
                made += self._filled(node.output[0], constant.dims, constant.data_type, learned, shapes, taken)
                continue
            self._node(node, [*taken])
            nodes.append(node)
        gone = {output for node in made for output in node.output}
        added = [numpy_helper.from_array(np.asarray(dims, np.int64), name) for dims, name in shapes.items()]
        inputs = [value for value in graph.input if is_body or value.name not in gone]
        for field, entries in (
            ("initializer", [*kept, *added]), ("sparse_initializer", sparse), ("node", [*made, *nodes]),
            ("input", inputs),
        ):  # fmt: skip
            copies = [type(entry).FromString(entry.SerializeToString()) for entry in entries]
            graph.ClearField(field)
            getattr(graph, field).extend(copies)
        graph.ClearField("doc_string")

    def _learned(self, name: str, dims: Sequence[int]) -> Learned | None:
        if int(np.prod(dims, dtype=np.int64)) < _SMALL:
            return None
        return self.decisions.learned.get(name)

    def _node(self, node: onnx.NodeProto, outer: Sequence[str]) -> None:
        kept = [entry for entry in node.metadata_props if entry.key.startswith("epsinas.")]
        known = {entry.key for entry in kept}
        for key, value in self.decisions.records.get(next(iter(node.output), ""), {}).items():
            if key not in known:
                kept.append(onnx.StringStringEntryProto(key=key, value=value))
                self.recorded = True
        node.ClearField("metadata_props")
        node.metadata_props.extend(kept)
        node.ClearField("doc_string")
        for body in proto_bodies(node):
            self.graph(body, outer, is_body=True)

    def _filled(
        self, name: str, dims: Sequence[int], dtype: int, learned: Learned, shapes: dict[tuple[int, ...], str],
        taken: set[str],
    ) -> list[onnx.NodeProto]:  # fmt: skip
        """Return nodes that make a tensor of this name and shape, full of one value."""
        key = tuple(int(dim) for dim in dims)
        if key not in shapes:
            shapes[key] = fresh(SHAPE_PREFIX + "x".join(map(str, key)), taken)
        is_variance = learned.use.role is Role.STATISTICS and learned.use.slot == 4
        value = float((learned.use.role is Role.WEIGHT and learned.part is not Part.ZERO) or is_variance)
        return list(filling(name, shapes[key], key, dtype, value, self.opset))


def filling(
    name: str, shape: str, dims: Sequence[int], dtype: int, value: float, opset: int
) -> Iterator[onnx.NodeProto]:
    """Yield the nodes that make the tensor `name` of one value: ConstantOfShape, and what older operator sets need.

    ConstantOfShape came with operator set 9, and knows bfloat16 and the small floats from 20 and 23.
    """
    direct = dtype in _DIRECT or opset >= 23 or (opset >= 20 and dtype == TensorProto.BFLOAT16)
    made = dtype if direct else TensorProto.FLOAT
    filled = name if direct else f"{name}.float32"
    if opset >= 9:
        scalar = helper.make_tensor("value", made, [1], [value])
        yield helper.make_node("ConstantOfShape", [shape], [filled], value=scalar)
    else:
        single = helper.make_tensor("value", made, [1] * len(dims), [value])
        yield helper.make_node("Constant", [], [f"{name}.one"], value=single)
        yield helper.make_node("Tile", [f"{name}.one", shape], [filled])
    if not direct:
        yield helper.make_node("Cast", [filled], [name], to=dtype)


_DIRECT = frozenset(
    {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT8, TensorProto.INT16,
     TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32,
     TensorProto.UINT64, TensorProto.BOOL}
)  # fmt: skip


class StoredConstant(NamedTuple):
    """The shape and the element type of what a Constant holds."""

    dims: tuple[int, ...]
    data_type: int


def stored_constant(node: onnx.NodeProto) -> StoredConstant | None:
    """Return what a Constant stores, dense or sparse; None for other nodes, a single number, integers and texts."""
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    for attribute in node.attribute:
        if attribute.name == "value":
            return StoredConstant(tuple(attribute.t.dims), attribute.t.data_type)
        if attribute.name == "value_floats":
            return StoredConstant((len(attribute.floats),), TensorProto.FLOAT)
        if attribute.name == "sparse_value":
            sparse = attribute.sparse_tensor
            return StoredConstant(tuple(sparse.dims), sparse.values.data_type)
    return None
