"""Gives everything in a model a name that tells nothing: nodes, values, dimensions, and where it came from."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from epsinas_onnx.graph.traversal import proto_bodies
from epsinas_onnx.inputs.generate import telling_word

_KEPT = "epsinas."


def anonymise(proto: onnx.ModelProto) -> None:
    """Rename everything in `proto`, in place, and drop its producer, descriptions and metadata.

    Inputs keep the word that decides what is fed to them. The functions of a model are renamed too; operators of other
    domains keep their names, because a runtime finds them by these.
    """
    for field in ("producer_name", "producer_version", "domain", "doc_string", "model_version"):
        proto.ClearField(field)
    _keep_own(proto)
    functions: dict[tuple[str, str], str] = {}
    for number, function in enumerate(proto.functions):
        functions[function.domain, function.name] = f"function{number}"
    namer = _Namer()
    for number, value in enumerate(proto.graph.input):
        word = telling_word(value.name)
        namer.give(value.name, f"input{number}" if word is None else f"{number}/{word}")
    for number, value in enumerate(proto.graph.output):
        if value.name not in namer.names:
            namer.give(value.name, f"output{number}")
    _graph(proto.graph, namer, functions)
    for function in proto.functions:
        _function(function, functions)


class _Namer:
    """New names for old ones; the empty name, which says that an operand is left out, stays."""

    def __init__(self) -> None:
        self.names: dict[str, str] = {"": ""}
        self.dims: dict[str, str] = {}

    def give(self, old: str, new: str) -> str:
        self.names[old] = new
        return new

    def value(self, old: str) -> str:
        return self.names[old] if old in self.names else self.give(old, f"v{len(self.names)}")

    def dim(self, old: str) -> str:
        return self.dims.setdefault(old, f"d{len(self.dims)}")


def _keep_own(holder: object) -> None:
    entries = holder.metadata_props  # type: ignore[attr-defined]
    kept = [entry for entry in entries if entry.key.startswith(_KEPT) and ":" not in entry.key]
    del entries[:]
    entries.extend(kept)


def _graph(graph: onnx.GraphProto, namer: _Namer, functions: dict[tuple[str, str], str]) -> None:
    graph.name = "graph"
    graph.ClearField("doc_string")
    _keep_own(graph)
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = namer.value(value.name)
        value.ClearField("doc_string")
        _keep_own(value)
        _type(value.type, namer.dim)
    for tensor in graph.initializer:
        tensor.name = namer.value(tensor.name)
        tensor.ClearField("doc_string")
    for sparse in graph.sparse_initializer:
        sparse.values.name = namer.value(sparse.values.name)
    for annotation in graph.quantization_annotation:
        annotation.tensor_name = namer.value(annotation.tensor_name)
        for entry in annotation.quant_parameter_tensor_names:
            entry.value = namer.value(entry.value)
    for number, node in enumerate(graph.node):
        _node(node, number, namer, functions)


def _node(node: onnx.NodeProto, number: int, namer: _Namer, functions: dict[tuple[str, str], str]) -> None:
    node.name = f"n{number}"
    node.ClearField("doc_string")
    _keep_own(node)
    if (node.domain, node.op_type) in functions:
        node.op_type, node.domain = functions[node.domain, node.op_type], "local"
    for names in (node.input, node.output):
        renamed = [namer.value(name) for name in names]
        del names[:]
        names.extend(renamed)
    for attribute in node.attribute:
        attribute.ClearField("doc_string")
        for tensor in (*([attribute.t] if attribute.HasField("t") else ()), *attribute.tensors):
            tensor.ClearField("name")
            tensor.ClearField("doc_string")
    for body in proto_bodies(node):
        _graph(body, namer, functions)


def _function(function: onnx.FunctionProto, functions: dict[tuple[str, str], str]) -> None:
    function.name = functions[function.domain, function.name]
    function.domain = "local"
    function.ClearField("doc_string")
    _keep_own(function)
    namer = _Namer()
    for names in (function.input, function.output):
        renamed = [namer.value(name) for name in names]
        del names[:]
        names.extend(renamed)
    for value in function.value_info:
        value.name = namer.value(value.name)
    for number, node in enumerate(function.node):
        _node(node, number, namer, functions)


def _type(kind: onnx.TypeProto, dim_name: Callable[[str], str]) -> None:
    which = kind.WhichOneof("value")
    if which in ("tensor_type", "sparse_tensor_type"):
        for dim in getattr(kind, which).shape.dim:
            if dim.dim_param:
                dim.dim_param = dim_name(dim.dim_param)
            dim.ClearField("denotation")
    elif which in ("sequence_type", "optional_type"):
        _type(getattr(kind, which).elem_type, dim_name)
    elif which == "map_type":
        _type(kind.map_type.value_type, dim_name)
