"""Networks whose normalisation an exporter left as arithmetic, at several ranks, and the ways to store tensors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ..builders import build
from .models import graphs

_NORM = "[bn1_batchnorm_mul] b = Mul(a, s)  [bn1_batchnorm_add] c = Add(b, t)"


def affine_networks() -> dict[str, onnx.ModelProto]:
    """Return networks with one batch normalisation as a stored scale and shift behind an activation."""
    head = "o = MatMul(d, w)  y = Sigmoid(o)"
    return {
        "table": build(
            f"(int64[N,6] ids) => (float[N,6,5] y) {{ a = Gather(emb, ids)  {_NORM}  d = Tanh(c)  {head} }}",
            emb=(50, 16), s=(16,), t=(16,), w=(16, 5),
        ),
        "dense": build(
            f"(float[N,7] x) => (float[N,5] y) {{ h = MatMul(x, v)  a = Relu(h)  {_NORM}  d = Relu(c)  {head} }}",
            v=(7, 16), s=(16,), t=(16,), w=(16, 5),
        ),
        "dense over steps": build(
            f"(float[N,6,7] x) => (float[N,6,5] y) {{ h = MatMul(x, v)  a = Relu(h)  {_NORM}  d = Relu(c)  {head} }}",
            v=(7, 16), s=(16,), t=(16,), w=(16, 5),
        ),
        "dense over steps, nothing between": build(
            f"(float[N,6,7] x) => (float[N,6,5] y) {{ a = MatMul(x, v)  {_NORM}  d = Relu(c)  {head} }}",
            v=(7, 16), s=(16,), t=(16,), w=(16, 5),
        ),
        "identity between": build(
            "(float[N,3,8,8] x) => (float[N,5,6,6] y) { h = Conv(x, v)  a = Identity(h)"
            f"  {_NORM}  d = Relu(c)  o = Conv(d, w)  y = Sigmoid(o) }}",
            v=(4, 3, 3, 3), s=(4, 1, 1), t=(4, 1, 1), w=(5, 4, 1, 1),
        ),
        "pooled": build(
            "(float[N,3,8,8] x) => (float[N,5,1,1] y) { h = Conv(x, v)  a = GlobalMaxPool(h)"
            f"  {_NORM}  d = Relu(c)  o = Conv(d, w)  y = Sigmoid(o) }}",
            v=(4, 3, 3, 3), s=(4, 1, 1), t=(4, 1, 1), w=(5, 4, 1, 1),
        ),
        "one axis, last": build(
            "(float[N,21,7] x) => (float[N,5] y) { e = Transpose <perm = [0, 2, 1]> (x)  f = Unsqueeze(e, two)"
            "  g = Conv <pads = [0, 1, 0, 1]> (f, k)  h = Squeeze(g, two)  i = Transpose <perm = [0, 2, 1]> (h)"
            f"  a = Relu(i)  {_NORM}  d = Reshape(c, flat)  {head} }}",
            two=np.array([2]), k=(49, 7, 1, 3), s=(49,), t=(49,), flat=np.array([-1, 1029]), w=(1029, 5),
        ),
        "one axis, first": build(
            "(float[N,7,21] x) => (float[N,5] y) { g = Conv <pads = [1, 1]> (x, k)  a = Relu(g)"
            f"  {_NORM}  d = Reshape(c, flat)  {head} }}",
            k=(49, 7, 3), s=(49, 1), t=(49, 1), flat=np.array([-1, 1029]), w=(1029, 5),
        ),
        "two axes, last": build(
            "(float[N,6,5,3] x) => (float[N,5] y) { e = Transpose <perm = [0, 3, 1, 2]> (x)  g = Conv(e, k)"
            f"  i = Transpose <perm = [0, 2, 3, 1]> (g)  a = Relu(i)  {_NORM}  d = Reshape(c, flat)  {head} }}",
            k=(8, 3, 3, 3), s=(1, 1, 1, 8), t=(8,), flat=np.array([-1, 96]), w=(96, 5),
        ),
        "three axes, last": build(
            "(float[N,4,4,4,2] x) => (float[N,5] y) { e = Transpose <perm = [0, 4, 1, 2, 3]> (x)  g = Conv(e, k)"
            f"  i = Transpose <perm = [0, 2, 3, 4, 1]> (g)  a = Relu(i)  {_NORM}  d = Reshape(c, flat)  {head} }}",
            k=(6, 2, 3, 3, 3), s=(6,), t=(6,), flat=np.array([-1, 48]), w=(48, 5),
        ),
    }  # fmt: skip


def _stored(node: onnx.NodeProto) -> onnx.TensorProto | None:
    values = (attribute.t for attribute in node.attribute if attribute.name == "value")
    return next(values, None) if node.op_type == "Constant" and node.domain == "" else None


def as_initializers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose Constant nodes are initializers, none of which is listed as an input."""
    copy = onnx.ModelProto.FromString(proto.SerializeToString())
    copy.ir_version = max(copy.ir_version, 4)
    for graph in graphs(copy.graph):
        for node in list(graph.node):
            tensor = _stored(node)
            if tensor is not None:
                graph.initializer.add().CopyFrom(tensor)
                graph.initializer[-1].name = node.output[0]
                graph.node.remove(node)
        names = {tensor.name for tensor in graph.initializer}
        for value in [value for value in graph.input if value.name in names]:
            graph.input.remove(value)
    return copy


def as_constants(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose initializers are Constant nodes."""
    copy = as_initializers(proto)
    for graph in graphs(copy.graph):
        _put_first(graph, [helper.make_node("Constant", [], [one.name], value=one) for one in graph.initializer])
        del graph.initializer[:]
    return copy


def as_inputs(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose initializers are listed as inputs too."""
    copy = as_initializers(proto)
    for one in copy.graph.initializer:
        copy.graph.input.append(helper.make_tensor_value_info(one.name, one.data_type, one.dims))
    return copy


def as_repeated(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a copy with a ConstantOfShape for each tensor of one number; None where there is no such operator."""
    copy = as_initializers(proto)
    if not any(entry.domain == "" and entry.version >= 9 for entry in copy.opset_import):
        return None
    for graph in graphs(copy.graph):
        made = []
        for one in list(graph.initializer):
            if one.data_type not in _REPEATED:
                continue
            array = numpy_helper.to_array(one)
            if array.size and (array == array.reshape(-1)[0]).all():
                graph.initializer.append(numpy_helper.from_array(np.asarray(array.shape, np.int64), f"{one.name}.dims"))
                value = numpy_helper.from_array(array.reshape(-1)[:1])
                made.append(helper.make_node("ConstantOfShape", [f"{one.name}.dims"], [one.name], value=value))
                graph.initializer.remove(one)
        _put_first(graph, made)
    return copy


_REPEATED = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.INT32})


def beside(proto: onnx.ModelProto, folder: Path) -> Path:
    """Save with all tensors in a file of their own."""
    path = folder / "beside.onnx"
    onnx.save_model(as_initializers(proto), path, save_as_external_data=True, location="beside.data", size_threshold=0)
    return path


def stored_forms(proto: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, onnx.ModelProto | Path]]:
    """Yield the same model with its tensors stored in every way that ONNX knows."""
    yield "initializers", as_initializers(proto)
    yield "constants", as_constants(proto)
    yield "inputs", as_inputs(proto)
    repeated = as_repeated(proto)
    if repeated is not None:
        yield "one number", repeated
    yield "external data", beside(proto, folder)


def _put_first(graph: onnx.GraphProto, made: list[onnx.NodeProto]) -> None:
    nodes = [*made, *(onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)
