"""Writes a model into a file, or into two where its weights are too many for one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from onnx.external_data_helper import set_external_data

from epsinas_onnx.graph.traversal import proto_bodies
from epsinas_onnx.output.files import replacing, write_output

_SMALL = 1024  # bytes of a tensor that stays in the model


def write_model(proto: onnx.ModelProto, output: str | os.PathLike[str] | None) -> None:
    """Write a model into a file where one is named; raises OutputError when that fails."""
    if output is not None:
        write_output(output, proto.SerializeToString())


def data_path(output: str | os.PathLike[str]) -> Path:
    """Return where the weights of a model go that are too many for its file."""
    return Path(f"{os.fspath(output)}.data")


def write_with_data(proto: onnx.ModelProto, output: str | os.PathLike[str]) -> None:
    """Write a model, whose initializers leave `proto` for a file beside it; raises OutputError when that fails."""
    beside = data_path(output)
    with replacing(beside) as file:
        for tensor in _initializers(proto.graph):
            if len(tensor.raw_data) < _SMALL:
                continue
            set_external_data(tensor, beside.name, offset=file.tell(), length=len(tensor.raw_data))
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    write_model(proto, output)


def _initializers(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for body in proto_bodies(node):
            yield from _initializers(body)
