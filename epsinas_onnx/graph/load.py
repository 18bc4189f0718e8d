"""Reads a model into onnx-ir without touching weight bytes, and refuses what is not a sound ONNX graph."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from epsinas_onnx._util.fresh import fresh
from epsinas_onnx.errors import ModelError, UnsupportedError, UsageError
from epsinas_onnx.graph import deserialise
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.inlined_size import check_inlined_size
from epsinas_onnx.graph.operators import is_packed
from epsinas_onnx.graph.passes.dequantise import dequantise
from epsinas_onnx.graph.passes.float_rewriter import Dequantised
from epsinas_onnx.graph.passes.fold_shapes import fold_shapes
from epsinas_onnx.graph.passes.lift_invariants import free_invariants
from epsinas_onnx.graph.passes.upgrade_opset import OLDEST_OPSET, declared_opset, lifted
from epsinas_onnx.graph.passes.weight_inputs import Supplied, store_supplied
from epsinas_onnx.graph.references import bind_data_files, bind_own_data_files, check_references, read_model_file
from epsinas_onnx.graph.traversal import all_graphs, node_bodies, note_bodies, proto_bodies
from epsinas_onnx.graph.validate import check_soundness


@runtime_checkable
class Buildable(Protocol):
    """A network that is built where it is scored, such as an architecture of a search space; to be picklable."""

    @property
    def name(self) -> str:
        """How results call it."""

    def build(self) -> ir.Model:
        """Return the network; a ValueError says what is wrong with its description."""


ModelSource: TypeAlias = str | os.PathLike[str] | bytes | onnx.ModelProto | ir.Model | Buildable

_WHOLE = frozenset({ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL})
_LONGEST_LIST, _MOST_AXES = 4096, 16
STANDARD_DOMAINS = frozenset({"", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})


@dataclass(frozen=True)
class LoadedModel:
    """A model with its functions inlined and every node and value named.

    name: for messages and reports. nodes: how many, bodies of If, Loop and Scan included. quantised: what integer
    arithmetic was turned back into float. supplied: the weights that the file has as inputs.
    """

    model: ir.Model
    name: str
    nodes: int
    quantised: Dequantised = field(default_factory=Dequantised)
    supplied: Supplied = field(default_factory=Supplied)

    def copy(self) -> LoadedModel:
        """Return the same with a graph of its own, for what changes it in place."""
        return dataclasses.replace(self, model=self.model.clone())

    def notes(self) -> list[str]:
        """Return what a reader of the score should know about how the file was read."""
        return [*self.quantised.notes(), *self.supplied.notes()]


def load_proto(source: ModelSource, name: str) -> onnx.ModelProto:
    """Return a copy of the model behind `source` as it is stored, external data not opened.

    `source` must be one that `load_model` takes.
    """
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)
        return _checked(copy, None, name)
    if isinstance(source, bytes):
        return _checked(_parse(source, name), None, name)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        return _checked(_parse(read_model_file(path), name), path.parent, name)
    return ir.to_proto(_built(source) if isinstance(source, Buildable) else source)


def without_storing_functions(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Return a model whose functions store no tensors: inlined, under the names that `load_model` gives, if one does.

    Raises UnsupportedError where the model also has sparse tensors, which get lost on the way.
    """
    if not any(_stores(node) for function in proto.functions for node in function.node):
        return proto
    if deserialise.has_sparse(proto):
        raise UnsupportedError(
            f"{name}: has sparse tensors, and functions that store tensors; inline the functions with onnx.inliner"
        )
    return ir.to_proto(_inline(deserialise.from_proto(proto, name), name))


def _stores(node: onnx.NodeProto) -> bool:
    large = any(len(attribute.floats) > 1 or math.prod(attribute.t.dims) > 1 for attribute in node.attribute)
    bodies = proto_bodies(node)
    return (node.op_type == "Constant" and large) or any(
        bool(body.initializer) or any(map(_stores, body.node)) for body in bodies
    )


def source_name(source: object) -> str:
    """Return how a model is called in messages: its path, or its kind where it has none."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    if isinstance(source, Buildable):
        return source.name
    kinds = {bytes: "<bytes>", onnx.ModelProto: "<ModelProto>", ir.Model: "<ir.Model>"}
    return next((name for kind, name in kinds.items() if isinstance(source, kind)), f"<{type(source).__name__}>")


def load_model(
    source: ModelSource, named_inputs: Collection[str] = (), *, proto: onnx.ModelProto | None = None
) -> LoadedModel:
    """Return the model behind `source`, which is never modified.

    External data is not opened but for the short lists that shapes follow from: a kept constant that lives there is
    read when the graph is rewritten. Inputs that are weights become initializers without data, but for those in
    `named_inputs`. Operator sets below 7 are lifted to 7. proto: what `load_proto` gave for the file `source`, so that
    it is not read again.

    Raises ModelError when the file is missing, empty, cut off or not ONNX, when a network cannot be built, or when an
    external-data path leaves the model's folder; UnsupportedError for an operator set below 7 that cannot be lifted;
    UsageError when `source` is none of the accepted kinds.
    """
    name = source_name(source)
    if isinstance(source, (ir.Model, Buildable)):
        model = source.clone() if isinstance(source, ir.Model) else _built(source)
        note_bodies(model.graph)
        bind_own_data_files(model, name)
    elif isinstance(source, (onnx.ModelProto, bytes, str, os.PathLike)):
        folder = Path(source).parent if isinstance(source, (str, os.PathLike)) else None
        if isinstance(source, onnx.ModelProto):
            proto = _checked(source, None, name)
        model = _from_proto(proto or load_proto(source, name), name)
        note_bodies(model.graph)
        bind_data_files(model, folder, name)
        _read_sizes(model)
    else:
        raise UsageError(
            f"a model is a path, bytes, an onnx.ModelProto, an onnx_ir.Model, or an object with a name and a build() "
            f"that returns one, not {type(source).__name__}"
        )
    _check_opset(model, name)
    if model.functions:
        model = _inline(model, name)
        note_bodies(model.graph)
    if any(value.is_initializer() for graph in all_graphs(model.graph) for value in graph.inputs):
        RemoveInitializersFromInputsPass()(model)  # IR version 3 lists every initializer as an input too
    _check_values(model, name)
    _name_everything(model)
    nodes = sum(len(graph) for graph in all_graphs(model.graph))
    free_invariants(model)
    quantised = dequantise(model)
    supplied = store_supplied(model, name, named_inputs)
    fold_shapes(model)
    return LoadedModel(model, name, nodes, quantised, supplied)


INTEGER_ARITHMETIC = frozenset({"MulInteger", "NhwcMaxPool", "QLinearReduceMean", "QLinearWhere", "QOrderedGelu"})
"""Operators that compute with integers, have no packed weights, and that `dequantise` does not turn back."""


def check_standard(model: ir.Model, name: str) -> None:
    """Raise UnsupportedError for the first operator that ONNX Runtime does not know, or that computes with integers."""
    for node in (node for graph in all_graphs(model.graph) for node in graph):
        if node.op_type in INTEGER_ARITHMETIC or is_packed(node):
            raise UnsupportedError(
                f"{name}: node {node.name!r} is {node.op_type}, which computes with integers in a way that cannot be "
                f"turned back into float; score the float model, or one that is quantised with DequantizeLinear"
            )
        if node.domain not in STANDARD_DOMAINS:
            raise UnsupportedError(
                f"{name}: node {node.name!r} is {node.domain}::{node.op_type}, an operator that ONNX Runtime does not "
                f"know; export the model without custom operators, or define it as a model-local function"
            )


def _built(source: Buildable) -> ir.Model:
    try:
        return source.build()
    except (ValueError, LookupError) as error:
        raise ModelError(str(error)) from error


def _parse(data: bytes, name: str) -> onnx.ModelProto:
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(data)
    except DecodeError:
        raise ModelError(
            f"{name}: is not an ONNX file, or was cut off ({len(data):,} bytes); export or copy it again"
        ) from None
    return proto


def _checked(proto: onnx.ModelProto, folder: Path | None, name: str) -> onnx.ModelProto:
    if not proto.HasField("graph") or not proto.opset_import or not (proto.graph.node or proto.graph.output):
        raise ModelError(f"{name}: holds no ONNX graph; it is another kind of file, or was cut off")
    check_soundness(proto, name)
    check_references(proto, folder, name)
    return proto


def _from_proto(proto: onnx.ModelProto, name: str) -> ir.Model:
    opset = declared_opset(proto)
    if opset is not None and opset < OLDEST_OPSET:
        proto = lifted(proto) or proto
    try:
        return deserialise.from_proto(proto, name)
    except ModelError:
        raise
    except Exception as error:  # onnx-ir raises many kinds for graphs that contradict themselves
        raise ModelError(f"{name}: the ONNX graph contradicts itself: {_first_line(error)}") from error


def _check_opset(model: ir.Model, name: str) -> None:
    opset = model.opset_imports.get("", model.opset_imports.get("ai.onnx"))
    if opset is None:
        if any(node.domain == "" for node in model.graph.all_nodes()):
            raise ModelError(f"{name}: uses standard operators but imports no operator set; export it again")
    elif opset < OLDEST_OPSET:
        raise UnsupportedError(
            f"{name}: uses operator set {opset}, the oldest that can be run is {OLDEST_OPSET}, and onnx's converter "
            f"does not lift it; export the model again"
        )


def _read_sizes(model: ir.Model) -> None:
    """Read what shapes follow from where it lies in data files: short lists of integers, and scales of a Resize.

    One that cannot be read is missed where it is used.
    """
    for graph in all_graphs(model.graph):
        for value in graph.initializers.values():
            tensor = value.const_value
            if not isinstance(tensor, ir.ExternalTensor):
                continue
            longest = _LONGEST_LIST if tensor.dtype in _WHOLE else _MOST_AXES
            if tensor.size <= longest and (tensor.dtype in _WHOLE or tensor.dtype in FLOATS):
                with contextlib.suppress(ModelError):
                    value.const_value = ir.tensor(np.array(tensor.numpy()), name=tensor.name)


def _inline(model: ir.Model, name: str) -> ir.Model:
    check_inlined_size(model, name)
    try:
        return InlinePass()(model).model
    except Exception as error:
        raise ModelError(f"{name}: its functions cannot be inlined: {_first_line(error)}") from error


def _check_values(model: ir.Model, name: str) -> None:
    """Raise ModelError for the first value that nothing makes, or that is made of itself; bring nodes into order."""
    for graph in all_graphs(model.graph):
        known: set[ir.Value | None] = set()
        for node in graph:
            for slot, value in enumerate(node.inputs):
                if value is not None and value not in known and _made_by_nobody(value):
                    raise ModelError(
                        f"{name}: node {node.name!r} ({node.op_type}), input {slot}: nothing makes the value "
                        f"{value.name!r}; export the model again, with its parameters (strip takes weights out)"
                    )
            known.update(node.inputs)
        for value in graph.outputs:
            if _made_by_nobody(value):
                raise ModelError(f"{name}: nothing makes the output {value.name!r}; export the model again")
    if not _in_order(model.graph, {None}):
        try:
            model.graph.sort()
        except ValueError:
            raise ModelError(
                f"{name}: its nodes go in a circle, each computed from the next; export the model again"
            ) from None


def _in_order(graph: ir.Graph, made: set[ir.Value | None]) -> bool:
    """Whether every node comes behind those that it reads, in bodies too; made: values that are known to be there."""
    for node in graph:
        for value in node.inputs:
            if value not in made and _is_computed(value):
                return False
        if not all(_in_order(body, made) for body in node_bodies(node)):
            return False
        made.update(node.outputs)
    return all(value in made for value in graph.outputs if _is_computed(value))


def _is_computed(value: ir.Value | None) -> bool:
    return value is not None and value.producer() is not None


def _made_by_nobody(value: ir.Value) -> bool:
    return value.producer() is None and not value.is_graph_input() and not value.is_initializer()


def _name_everything(model: ir.Model) -> None:
    """Give every node a name of its own and unnamed values one, so that every message and pattern can refer to them.

    A name that several nodes have is told apart by where they are: `OUTER/ATTRIBUTE/NAME` in a body, else by a number.
    """
    values: set[str | None] | None = None
    for node in (node for graph in all_graphs(model.graph) for node in graph):
        for index, value in enumerate(node.outputs):
            if not value.name and value.uses():
                if values is None:
                    values = {v.name for graph in all_graphs(model.graph) for n in graph for v in n.outputs}
                value.name = fresh(f"{node.op_type}_out{index}", values, "_")
        if not node.name:
            first = next((value.name for value in node.outputs if value.name), "")
            node.name = f"{node.op_type}({first})"
    times = Counter(node.name for graph in all_graphs(model.graph) for node in graph)
    if max(times.values(), default=1) > 1:
        _tell_apart(model.graph, "", {name for name, count in times.items() if count > 1}, set(times))


def _tell_apart(graph: ir.Graph, prefix: str, shared: Collection[str | None], taken: set[str | None]) -> None:
    seen: set[str | None] = set()
    for node in graph:
        if node.name in shared:
            name = f"{prefix}{node.name}"
            node.name = fresh(name, taken, "_") if prefix or name in seen else name
            seen.add(name)
        for attribute in node.attributes.values():
            for place, body in _bodies_of(attribute):
                _tell_apart(body, f"{node.name}/{place}/", shared, taken)


def _bodies_of(attribute: ir.Attr) -> Iterator[tuple[str, ir.Graph]]:
    if attribute.is_ref():
        return
    if attribute.type == ir.AttributeType.GRAPH:
        yield attribute.name, attribute.as_graph()
    elif attribute.type == ir.AttributeType.GRAPHS:
        for number, body in enumerate(attribute.as_graphs()):
            yield f"{attribute.name}.{number}", body


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
