"""Lifts models of operator sets below 7, which ONNX Runtime does not promise to run, to operator set 7."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import version_converter

OLDEST_OPSET = 7
"""The oldest operator set that ONNX Runtime promises to run."""


def declared_opset(proto: onnx.ModelProto) -> int | None:
    """Return the operator set of the standard domain, None where the model imports none."""
    return next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), None)


def lifted(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """Return a copy in operator set 7; None where onnx's converter gives up. `proto` is never modified."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    try:
        _give_slopes_axes(copy)
        return version_converter.convert_version(copy, OLDEST_OPSET)
    except Exception:  # it raises what it likes: no adapter, a graph that contradicts itself
        return None


def _give_slopes_axes(proto: onnx.ModelProto) -> None:
    """Give the slopes of PRelu, one for each channel, the axes that numpy's broadcasting asks for from set 7 on."""
    ranks = dict(_ranks(onnx.shape_inference.infer_shapes(proto).graph))
    for node in proto.graph.node:
        rank = ranks.get(node.input[0], 0) if node.op_type == "PRelu" else 0
        if rank <= 2:
            continue
        for tensor in proto.graph.initializer:
            if tensor.name == node.input[1] and len(tensor.dims) == 1:
                tensor.dims.extend([1] * (rank - 2))
        for value in proto.graph.input:
            shape = value.type.tensor_type.shape
            if value.name == node.input[1] and len(shape.dim) == 1:
                shape.dim.extend(onnx.TensorShapeProto.Dimension(dim_value=1) for _ in range(rank - 2))


def _ranks(graph: onnx.GraphProto) -> Iterator[tuple[str, int]]:
    for value in (*graph.value_info, *graph.input):
        if value.type.tensor_type.HasField("shape"):
            yield value.name, len(value.type.tensor_type.shape.dim)
