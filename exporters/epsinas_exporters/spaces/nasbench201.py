"""NAS-Bench-201 (Dong and Yang, ICLR 2020): architecture strings, their index order, and their ONNX graphs."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The five operations, in the order in which the benchmark enumerates them."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges of a cell as (source node, target node), in the order of the architecture string."""

_INDEX_SEED = 88  # the benchmark shuffled its enumeration with this seed; its indices mean nothing without it
_EDGE = re.compile(r"(?P<operation>[^~|]+)~(?P<source>\d+)")


class ArchitectureError(ValueError):
    """An architecture string that does not describe a cell; the message names the edge that is wrong."""


@dataclass(frozen=True)
class Cell:
    """One cell: an operation per edge, in the order of `EDGES`."""

    operations: tuple[str, ...]

    def __str__(self) -> str:
        a, b, c, d, e, f = self.operations
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


def parse(arch: str) -> Cell:
    """Return the cell that `arch` describes, such as `|none~0|+|none~0|none~1|+|none~0|none~1|skip_connect~2|`.

    Raises ArchitectureError that names the node and the edge when the string is not of that form.
    """
    nodes = arch.strip().split("+")
    if len(nodes) != 3:
        raise ArchitectureError(
            f"architecture {arch!r} describes {len(nodes)} nodes, and a NAS-Bench-201 cell has 3, joined by '+'; "
            f"write it like {Cell(('none',) * 6)}"
        )
    operations: list[str] = []
    for target, text in enumerate(nodes, start=1):
        edges = text.strip("|").split("|")
        if not (text.startswith("|") and text.endswith("|")) or len(edges) != target:
            raise ArchitectureError(
                f"node {target} of architecture {arch!r} reads {text!r}; it needs {target} edge(s) between '|' signs"
            )
        operations += [_operation(edge, source, target, arch) for source, edge in enumerate(edges)]
    return Cell(tuple(operations))


def _operation(edge: str, source: int, target: int, arch: str) -> str:
    match = _EDGE.fullmatch(edge)
    where = f"edge {source}->{target} of architecture {arch!r}"
    if match is None:
        raise ArchitectureError(f"{where} reads {edge!r}; write it as OPERATION~{source}")
    if int(match["source"]) != source:
        raise ArchitectureError(
            f"{where} comes from node {match['source']} ({edge!r}); it must come from node {source}"
        )
    if match["operation"] not in OPERATIONS:
        raise ArchitectureError(
            f"{where} has the unknown operation {match['operation']!r}; known are {', '.join(OPERATIONS)}"
        )
    return match["operation"]


def architectures() -> list[str]:
    """Return all 15,625 architecture strings in the index order of the benchmark."""
    cells = [Cell(operations) for operations in itertools.product(OPERATIONS, repeat=len(EDGES))]
    random.Random(_INDEX_SEED).shuffle(cells)
    return [str(cell) for cell in cells]


def sample(count: int, seed: int = 0) -> list[str]:
    """Return `count` different architectures drawn uniformly; the same seed gives the same list.

    Raises ValueError when `count` is negative or more than the space holds.
    """
    everything = architectures()
    if not 0 <= count <= len(everything):
        raise ValueError(f"cannot draw {count} different architectures: NAS-Bench-201 has {len(everything)}")
    return random.Random(seed).sample(everything, count)


def file_name(arch: str) -> str:
    """Return a file name for `arch` that any file system takes, one letter or two per edge."""
    short = {"none": "n", "skip_connect": "s", "nor_conv_1x1": "c1", "nor_conv_3x3": "c3", "avg_pool_3x3": "p"}
    return "nb201-" + "-".join(short[operation] for operation in parse(arch).operations) + ".onnx"


def build(arch: str, *, channels: int = 16, cells: int = 5, classes: int = 1) -> ir.Model:
    """Return the network of `arch` as an ONNX model, written directly, with no weight bytes and a free batch.

    The network is the benchmark's CIFAR one: a 3x3 stem without bias, three stages of `cells` cells with widths
    `channels`, `2 * channels` and `4 * channels`, a residual block with stride 2 between stages, then batch
    normalisation, ReLU, global mean and a classifier of `classes` outputs (1 in the epsinas paper).

    Input `input`: float32 `[batch, 3, 32, 32]`. Output `output`: float32 `[batch, classes]`. Nodes are called
    `stage1.cell0.edge0-2.conv`, after what they are part of.

    Raises ArchitectureError for a bad string, and ValueError when a size is below 1.
    """
    cell = parse(arch)
    for what, size in (("channels", channels), ("cells", cells), ("classes", classes)):
        if size < 1:
            raise ValueError(f"{what} is {size}; it must be at least 1")
    builder = GraphBuilder("nasbench201")
    image = tensor_input("input", ["batch", 3, 32, 32])
    x = builder.batch_norm(builder.conv(image, "stem.conv", 3, channels, 3), "stem.bn", channels)
    width = channels
    for stage in range(3):
        if stage:
            x = _residual_block(builder, x, f"reduce{stage}", width)
            width *= 2
        for index in range(cells):
            x = _cell(builder, x, cell, f"stage{stage}.cell{index}", width)
    x = builder.op("Relu", [builder.batch_norm(x, "head.bn", width)], "head.relu")
    x = builder.op("Flatten", [builder.op("GlobalAveragePool", [x], "head.pool")], "head.flatten")
    x = builder.linear(x, "output", width, classes)
    return builder.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": str(cell)})


def build_many(archs: Sequence[str], **sizes: int) -> Iterator[tuple[str, ir.Model]]:
    """Yield each architecture with its model, built one at a time."""
    for arch in archs:
        yield arch, build(arch, **sizes)


def _relu_conv_bn(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> ir.Value:
    x = b.op("Relu", [x], f"{name}.relu")
    return b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, kernel, stride), f"{name}.bn", outputs)


def _cell(b: GraphBuilder, x: ir.Value, cell: Cell, name: str, width: int) -> ir.Value:
    nodes = [x]
    for target in (1, 2, 3):
        total: ir.Value | None = None
        for (source, end), operation in zip(EDGES, cell.operations, strict=True):
            if end == target:
                value = _edge(b, nodes[source], operation, f"{name}.edge{source}-{target}", width)
                total = value if total is None else b.op("Add", [total, value], f"{name}.node{target}.add{source}")
        assert total is not None
        nodes.append(total)
    return nodes[3]


def _edge(b: GraphBuilder, x: ir.Value, operation: str, name: str, width: int) -> ir.Value:
    match operation:
        case "none":
            return b.op("Mul", [x, b.scalar(0.0, "zero")], f"{name}.none")
        case "skip_connect":
            return x
        case "nor_conv_1x1":
            return _relu_conv_bn(b, x, name, width, width, 1)
        case "nor_conv_3x3":
            return _relu_conv_bn(b, x, name, width, width, 3)
        case _:
            return b.op("AveragePool", [x], f"{name}.pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)


def _residual_block(b: GraphBuilder, x: ir.Value, name: str, width: int) -> ir.Value:
    main = _relu_conv_bn(b, x, f"{name}.a", width, 2 * width, 3, stride=2)
    main = _relu_conv_bn(b, main, f"{name}.b", 2 * width, 2 * width, 3)
    pooled = b.op("AveragePool", [x], f"{name}.down.pool", kernel_shape=[2, 2], strides=[2, 2])
    short = b.conv(pooled, f"{name}.down.conv", width, 2 * width, 1)
    return b.op("Add", [short, main], f"{name}.add")
