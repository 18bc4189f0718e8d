"""Rules about what a file stores: tensors that nothing reads, and data that is not what the tensor declares."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from epsinas_onnx._util.memory import readable
from epsinas_onnx._util.text import NAMED, first_names
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.graph.tensor_data import data_problem, stored_bytes, stored_tensors
from epsinas_onnx.graph.traversal import proto_bodies


def _unused(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    unused = [tensor for graph, read in _scopes(model.proto.graph) for tensor in graph.initializer
              if tensor.name not in read]  # fmt: skip
    if unused:
        shown = first_names([repr(tensor.name) for tensor in unused])
        size = readable(sum(stored_bytes(tensor) for tensor in unused))
        what = "1 initializer is" if len(unused) == 1 else f"{len(unused)} initializers are"
        yield Problem(f"{what} read by no node ({size}): {shown}")


def _scopes(graph: onnx.GraphProto) -> list[tuple[onnx.GraphProto, set[str]]]:
    """Return a graph and the bodies below it, each with the names that are read in it or in a body of it."""
    read = {value.name for value in graph.output}
    read |= {annotated.tensor_name for annotated in graph.quantization_annotation}
    below = []
    for node in graph.node:
        read.update(node.input)
        for body in proto_bodies(node):
            scopes = _scopes(body)
            read |= scopes[0][1]
            below += scopes
    return [(graph, read), *below]


def _data(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    graph = model.proto.graph
    declared = {value.name: value for value in (*graph.input, *graph.value_info)}
    missing = [name for name, size in model.data_files.items() if size is None]
    for name in missing[:NAMED]:
        yield Problem(f"the file {name!r}, which holds the data of its tensors, is missing")
    for tensor in stored_tensors(graph):
        problem = data_problem(tensor, model.data_files)
        if problem is not None:
            yield Problem(f"tensor {tensor.name!r} {problem}")
            continue
        shape = _declared_shape(declared.get(tensor.name))
        if shape is not None and not _agrees(tuple(tensor.dims), shape):
            yield Problem(
                f"tensor {tensor.name!r} has the shape {list(tensor.dims)}, and the graph declares "
                f"[{', '.join('?' if size is None else str(size) for size in shape)}]"
            )


def _declared_shape(value: onnx.ValueInfoProto | None) -> tuple[int | None, ...] | None:
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    kind = value.type.tensor_type
    return tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim)


def _agrees(shape: tuple[int, ...], declared: tuple[int | None, ...]) -> bool:
    return len(shape) == len(declared) and all(b in (None, a) for a, b in zip(shape, declared, strict=True))


def _unjudged(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    for found in model.planned.decisions.unjudged:
        yield Problem(
            f"nobody has judged whether {found.text} is a weight, so it keeps its values", str(found.node.name),
            f"Say what it is with a role for {found.place!r}: weight, bias, embedding or constant.",
        )  # fmt: skip


STORED = (
    Rule(
        "unused-initializer",
        Severity.WARNING,
        "The file stores tensors that no node reads.",
        "They cost download and memory, and often are what is left of a layer that the exporter cut off.",
        "Remove them (onnx_ir.passes.common.RemoveUnusedNodesPass does), or find out which layer is missing.",
        "Ignore it by path where another program reads the tensors.",
        _unused,
    ),
    Rule(
        "weight-data",
        Severity.ERROR,
        "The data of a tensor is missing, or does not fit the shape that is declared for it.",
        "The score never reads weights, so it would not notice; whoever runs the model will.",
        "Export the model again, and copy its data files with it.",
        "Ignore it by path for models that are kept without their data file on purpose; `epsinas-onnx strip` "
        "makes better ones.",
        _data,
    ),
    Rule(
        "unjudged-operator",
        Severity.WARNING,
        "A tensor is stored at an operator of which nobody has said whether it is a weight there.",
        "It keeps its values, so what was learned may decide the score; strip refuses the file because of it.",
        "Give it a role (score.roles): weight, bias, embedding, or constant where nothing is learned.",
        "Ignore it by path and node for constants of custom operators, once their role is given to strip.",
        _unjudged,
    ),
)
