"""Tensors as a file stores them: where they are, how many bytes they hold, and whether that is what they declare."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from epsinas_onnx.graph.traversal import proto_bodies

_PACKED: Mapping[int, int] = {TensorProto.INT4: 2, TensorProto.UINT4: 2, TensorProto.FLOAT4E2M1: 2}
"""Element types of which a byte holds several."""
_PAIRS = frozenset({TensorProto.COMPLEX64, TensorProto.COMPLEX128})
_UNSIZED = frozenset(
    kind for name, kind in TensorProto.DataType.items() if name in ("INT2", "UINT2", "FLOAT6E2M3", "FLOAT6E3M2")
)
"""Element types of other odd sizes, whose bytes are not counted."""
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


def every_tensor(proto: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield the tensors of a whole model: those of functions and of training too, and the parts of sparse ones."""
    yield from _of_graph(proto.graph)
    for function in proto.functions:
        yield from _of_attributes(function.attribute_proto)
        for node in function.node:
            yield from _of_attributes(node.attribute)
    for training in proto.training_info:
        yield from _of_graph(training.initialization)
        yield from _of_graph(training.algorithm)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield sparse.values
        yield sparse.indices
    for node in graph.node:
        if node.attribute:
            yield from _of_attributes(node.attribute)


_SCALARS = frozenset(
    {onnx.AttributeProto.INT, onnx.AttributeProto.INTS, onnx.AttributeProto.FLOAT, onnx.AttributeProto.FLOATS,
     onnx.AttributeProto.STRING, onnx.AttributeProto.STRINGS}
)  # fmt: skip


def _of_attributes(attributes: Iterable[onnx.AttributeProto]) -> Iterator[onnx.TensorProto]:
    for attribute in attributes:
        if attribute.type in _SCALARS:  # `check_soundness` has seen to it that these hold nothing else
            continue
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors
        sparse = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for one in (*sparse, *attribute.sparse_tensors):
            yield one.values
            yield one.indices
        for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
            yield from _of_graph(body)


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


def held_problem(tensor: onnx.TensorProto) -> str | None:
    """Return what is wrong with the data that a tensor holds in the model, None where it holds none at all.

    Files without weights leave data out; lists of sizes, which shapes follow from, may not be.
    """
    if not math.prod(tensor.dims) or tensor.data_type in _UNSIZED:
        return None
    held = {name for name in ("raw_data", *_FIELDS) if len(getattr(tensor, name))}
    usual = helper.tensor_dtype_to_field(tensor.data_type)
    wrong = held - {usual, *(() if tensor.data_type == TensorProto.STRING else ("raw_data",))}
    if wrong:
        return f"keeps entries of the type {TensorProto.DataType.Name(tensor.data_type)} in {min(wrong)!r}"
    if not held:
        sizes = tensor.data_type == TensorProto.INT64 and len(tensor.dims) < 2
        return f"declares the shape {list(tensor.dims)}, and holds nothing" if sizes else None
    return data_problem(tensor, {})


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
