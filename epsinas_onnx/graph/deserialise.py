"""Lets onnx-ir read what it does not know: sparse tensors become dense when read, maps the tensors they are made of."""

from __future__ import annotations

import math
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx import TensorProto, numpy_helper

from epsinas_onnx._util.memory import readable
from epsinas_onnx.errors import ModelError, OutOfMemory, UnsupportedError
from epsinas_onnx.graph.output_sizes import LARGEST
from epsinas_onnx.graph.read_flat import read_flat
from epsinas_onnx.graph.traversal import WITH_BODIES, all_graphs, proto_bodies

_PLACEHOLDER = f"epsinas.sparse.{secrets.token_hex(16)}:"
"""Nobody who writes a file can know it, so that no file can name what stands for another tensor."""


def from_proto(proto: onnx.ModelProto, name: str) -> ir.Model:
    """Return the model, with sparse initializers and Constants as tensors that become dense when they are read.

    An output that a ZipMap makes, which is how scikit-learn's classifiers give probabilities, becomes the tensor in
    front of it.

    Raises ModelError when a sparse tensor contradicts itself (ONNX IR specification, SparseTensorProto), and
    UnsupportedError when it lies in an external file or when an input is a map. What onnx-ir raises passes through.
    """
    found: list[onnx.SparseTensorProto] = []
    graphs = list(_graphs(proto.graph))
    sparse = has_sparse(proto)
    maps = any(_has_map(value.type) for graph in graphs for value in (*graph.input, *graph.output, *graph.value_info))
    if sparse or maps:
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        proto = copy
        for graph in list(_graphs(proto.graph)):
            _replace(graph, found)
            _unzip(graph, name)
    for one in found:
        _check(one, name)
    model = read_flat(proto) or ir.from_proto(proto)
    if found:
        _densify(model, found)
    return model


def has_sparse(proto: onnx.ModelProto) -> bool:
    """Whether a model stores sparse tensors."""
    return any(graph.sparse_initializer or any(_sparse_constants(graph)) for graph in _graphs(proto.graph))


def _has_map(kind: onnx.TypeProto) -> bool:
    which = kind.WhichOneof("value")
    if which in ("sequence_type", "optional_type"):
        return _has_map(getattr(kind, which).elem_type)
    return bool(which == "map_type")


def _unzip(graph: onnx.GraphProto, name: str) -> None:
    for value in graph.input:
        if _has_map(value.type):
            raise UnsupportedError(f"{name}: input {value.name!r} is a map, and only tensors can be fed")
    zips = {node.output[0]: node for node in graph.node if node.op_type == "ZipMap" and node.domain == "ai.onnx.ml"}
    for value in graph.output:
        if value.name in zips:
            tensor = zips[value.name].input[0]
            value.CopyFrom(onnx.helper.make_tensor_value_info(tensor, TensorProto.FLOAT, None))
        elif _has_map(value.type):
            value.ClearField("type")
    for node in zips.values():
        graph.node.remove(node)
    kept = [value for value in graph.value_info if not _has_map(value.type)]
    graph.ClearField("value_info")
    graph.value_info.extend(kept)


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        if node.domain or node.op_type in WITH_BODIES:
            for body in proto_bodies(node):
                yield from _graphs(body)


def _sparse_constants(graph: onnx.GraphProto) -> Iterator[onnx.AttributeProto]:
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (attribute for attribute in node.attribute if attribute.name == "sparse_value")


def _replace(graph: onnx.GraphProto, found: list[onnx.SparseTensorProto]) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(_placeholder(sparse, found))
    graph.ClearField("sparse_initializer")
    for attribute in list(_sparse_constants(graph)):
        tensor = _placeholder(attribute.sparse_tensor, found)
        attribute.CopyFrom(onnx.helper.make_attribute("value", tensor))


def _placeholder(sparse: onnx.SparseTensorProto, found: list[onnx.SparseTensorProto]) -> onnx.TensorProto:
    kept = onnx.SparseTensorProto()
    kept.CopyFrom(sparse)
    found.append(kept)
    values = sparse.values
    tensor = TensorProto(
        name=values.name, data_type=values.data_type, dims=sparse.dims, data_location=TensorProto.EXTERNAL
    )
    tensor.external_data.add(key="location", value=f"{_PLACEHOLDER}{len(found) - 1}")
    return tensor


def _check(sparse: onnx.SparseTensorProto, name: str) -> None:
    what = f"{name}: the sparse tensor {sparse.values.name!r}"
    if TensorProto.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise UnsupportedError(f"{what} lies in an external file, which is not supported; store it in the model")
    try:
        dense(sparse, check_only=True)
    except (ValueError, TypeError, IndexError):
        raise ModelError(f"{what} has indices that do not fit its shape {list(sparse.dims)}; export it again") from None


def dense(sparse: onnx.SparseTensorProto, check_only: bool = False) -> npt.NDArray[Any]:
    """Return the dense array of a sparse tensor, whose indices are linear or one row of coordinates per value.

    check_only: whether nothing but the indices is looked at; the result is then empty. Raises ValueError where they
    do not fit.
    """
    shape = tuple(sparse.dims)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if indices.ndim == 2:
        indices = np.ravel_multi_index(tuple(indices.T), shape)
    if indices.shape != values.shape or (indices.size and not 0 <= indices.min() <= indices.max() < math.prod(shape)):
        raise ValueError("indices do not fit")
    if check_only:
        return values[:0]
    size = math.prod(shape) * values.dtype.itemsize
    if size > LARGEST:
        raise OutOfMemory(
            f"the sparse tensor {sparse.values.name!r} is {readable(size)} when it is dense, and {readable(LARGEST)} "
            f"is the most that is computed; give it a role with --role"
        )
    array = np.zeros(math.prod(shape), values.dtype)
    array[indices] = values
    return array.reshape(shape)


def _densify(model: ir.Model, found: list[onnx.SparseTensorProto]) -> None:
    for graph in all_graphs(model.graph):
        for value in graph.initializers.values():
            value.const_value = _lazily(value.const_value, found)
        for node in graph:
            for key, attribute in list(node.attributes.items()):
                if attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
                    tensor = _lazily(attribute.value, found)
                    if tensor is not None and tensor is not attribute.value:
                        node.attributes[key] = ir.AttrTensor(key, tensor)


def _lazily(tensor: ir.TensorProtocol | None, found: list[onnx.SparseTensorProto]) -> ir.TensorProtocol | None:
    if not isinstance(tensor, ir.ExternalTensor) or not str(tensor.location).startswith(_PLACEHOLDER):
        return tensor
    sparse = found[int(str(tensor.location).removeprefix(_PLACEHOLDER))]
    shape = ir.Shape([int(dim) for dim in sparse.dims])
    return ir.LazyTensor(
        lambda: ir.tensor(dense(sparse), name=tensor.name), dtype=tensor.dtype, shape=shape, name=tensor.name
    )
