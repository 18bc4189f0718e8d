"""Tensors as a file stores them: where they are, how many bytes they hold, and whether that is what they declare."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from epsinas_onnx.graph.traversal import proto_bodies

_PACKED: Mapping[int, int] = {TensorProto.INT4: 2, TensorProto.UINT4: 2, TensorProto.FLOAT4E2M1: 2}
"""Element types of which a byte holds several."""
_PAIRS = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")


def stored_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield the dense tensors of a graph and its bodies: initializers, and attributes of any node."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
        for body in proto_bodies(node):
            yield from stored_tensors(body)


def data_files(graph: onnx.GraphProto, folder: Path) -> dict[str, int | None]:
    """Return the external data files of a graph in a file in `folder`, and their bytes, None for a missing one."""
    names = dict.fromkeys(
        entry.value
        for tensor in stored_tensors(graph)
        if tensor.data_location == TensorProto.EXTERNAL
        for entry in tensor.external_data
        if entry.key == "location"
    )
    return {name: size_of(folder / name) for name in names}


def bytes_with_data(path: Path, files: Mapping[str, int | None]) -> int:
    """Return how many bytes a file and its external data files have, missing ones left out."""
    return (size_of(path) or 0) + sum(size or 0 for size in files.values())


def size_of(path: Path) -> int | None:
    """Return how many bytes a file has, None where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def stored_bytes(tensor: onnx.TensorProto) -> int:
    """Return how many bytes a tensor of its shape and type takes, 0 where its type has no size."""
    count = int(math.prod(tensor.dims))
    if tensor.data_type in _PACKED:
        return -(-count // _PACKED[tensor.data_type])
    try:
        return count * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    except KeyError:
        return 0


def data_problem(tensor: onnx.TensorProto, files: Mapping[str, int | None]) -> str | None:
    """Return what is wrong with a tensor's data, as the rest of a sentence about it, None where all is well.

    files: the external data files and their sizes in bytes; a missing one is the caller's to report.
    """
    if any(size < 0 for size in tensor.dims):
        return f"declares the shape {list(tensor.dims)}, which has a negative size"
    expected = stored_bytes(tensor)
    if tensor.data_location == TensorProto.EXTERNAL:
        return _external_problem(tensor, files, expected)
    declared = f"declares the shape {list(tensor.dims)} and the type {TensorProto.DataType.Name(tensor.data_type)}"
    if tensor.HasField("raw_data"):
        found = len(tensor.raw_data)
        return None if found == expected else f"{declared}, {expected:,} bytes, and holds {found:,}"
    entries = math.prod(tensor.dims) * (2 if tensor.data_type in _PAIRS else 1)
    if tensor.data_type in _PACKED:
        entries = expected
    held = [len(getattr(tensor, name)) for name in _FIELDS]
    return None if sum(held) == entries else f"{declared}, {entries:,} entries, and holds {sum(held):,}"


def _external_problem(tensor: onnx.TensorProto, files: Mapping[str, int | None], expected: int) -> str | None:
    where = {entry.key: entry.value for entry in tensor.external_data}
    size = files.get(where.get("location", ""))
    try:
        offset, length = int(where.get("offset", 0)), int(where.get("length", expected))
    except ValueError:
        return "says where its external data lies in words that are no numbers"
    if length != expected:
        return f"declares {expected:,} bytes, and says that its external data has {length:,}"
    if size is not None and offset + length > size:
        return f"should end at byte {offset + length:,} of {where['location']!r}, which has {size:,}"
    return None
