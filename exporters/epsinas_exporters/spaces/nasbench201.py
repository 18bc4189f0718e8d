"""NAS-Bench-201 (Dong and Yang, ICLR 2020): architecture strings, their index order, and their ONNX graphs."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, SharingBuilder, tensor_input, typed_output
from epsinas_exporters.spaces.base import (
    ArchitectureError,
    Choices,
    Counts,
    Defaults,
    SearchSpace,
    check_sizes,
    sizes_of,
)

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
"""The five operations, in the order in which the benchmark enumerates them."""

EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""The six edges of a cell as (source node, target node), in the order of the architecture string."""

_SHORT = {"none": "n", "skip_connect": "s", "nor_conv_1x1": "c1", "nor_conv_3x3": "c3", "avg_pool_3x3": "p"}
_WITHOUT_EDGES = (72_721, 97)  # parameters and nodes of the network whose cells' edges are all skip_connect
_EDGE_NODES = {"none": 1, "skip_connect": 0, "nor_conv_1x1": 6, "nor_conv_3x3": 6, "avg_pool_3x3": 1}
_INDEX_SEED = 88  # the benchmark shuffled its enumeration with this seed; its indices mean nothing without it
_EDGE = re.compile(r"(?P<operation>[^~|]+)~(?P<source>\d+)")


@dataclass(frozen=True)
class Cell:
    """One cell: an operation per edge, in the order of `EDGES`."""

    operations: tuple[str, ...]

    def __str__(self) -> str:
        a, b, c, d, e, f = self.operations
        return f"|{a}~0|+|{b}~0|{c}~1|+|{d}~0|{e}~1|{f}~2|"


@lru_cache(maxsize=2**14)
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


class Term(NamedTuple):
    """A summand: the input of a cell, or what a convolution makes of a sum, pooled so many times. operation: "" for the
    input. of: the sum that is convolved.
    """

    poolings: int
    operation: str
    of: Sum


Sum: TypeAlias = tuple[Term, ...]
"""Summands in order; none is zero."""


def function_of(cell: Cell) -> Sum:
    """Return what a cell computes of its input while all its weights are one constant: cells of one function are equal.

    What `none` cuts off is left out, the order of summands makes no difference, and neither does whether a sum is
    pooled or its summands are, since the mean over windows is linear. So outputs are equal but for rounding.
    """
    nodes: list[Sum] = [(Term(0, "", ()),)]
    for target in (1, 2, 3):
        total: list[Term] = []
        for (source, end), operation in zip(EDGES, cell.operations, strict=True):
            value = nodes[source] if end == target else ()
            match operation:
                case "none":
                    continue
                case "skip_connect":
                    total += value
                case "avg_pool_3x3":
                    total += [term._replace(poolings=term.poolings + 1) for term in value]
                case _ if value:
                    total.append(Term(0, operation, value))
        nodes.append(tuple(sorted(total)))
    return nodes[3]


def _pooled_once_less(terms: Sum) -> Sum:
    """Return those summands that are pooled, each as it is before its last pooling."""
    return tuple(term._replace(poolings=term.poolings - 1) for term in terms if term.poolings)


@lru_cache(maxsize=2**14)
def as_text(terms: Sum) -> str:
    """Return a sum as text: `x` for the input of a cell, `c1`, `c3` and `p` for what is applied."""
    summands = [f"{_SHORT[term.operation]}({as_text(term.of)})" if term.operation else "x" for term in terms
                if not term.poolings]  # fmt: skip
    pooled = _pooled_once_less(terms)
    return "+".join([*summands, f"p({as_text(pooled)})"] if pooled else summands)


def file_name(arch: str) -> str:
    """Return a file name for `arch` that any file system takes, one letter or two per edge."""
    return "nb201-" + "-".join(_SHORT[operation] for operation in parse(arch).operations) + ".onnx"


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
    check_sizes(channels=channels, cells=cells, classes=classes)
    return _build(GraphBuilder("nasbench201"), cell, channels, cells, classes, build_cell)


def _build(
    builder: GraphBuilder, cell: Cell, channels: int, cells: int, classes: int, add_cell: Callable[..., ir.Value]
) -> ir.Model:
    image = tensor_input("input", ["batch", 3, 32, 32])
    x = builder.batch_norm(builder.conv(image, "stem.conv", 3, channels, 3), "stem.bn", channels)
    width = channels
    for stage in range(3):
        if stage:
            x = residual_block(builder, x, f"reduce{stage}", width, 2 * width)
            width *= 2
        for index in range(cells):
            x = add_cell(builder, x, cell, f"stage{stage}.cell{index}", width, width)
    x = head(builder, x, width, classes)
    return builder.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": str(cell)})


class NASBench201(SearchSpace):
    """The topology search space of NAS-Bench-201 and NATS-Bench."""

    name = "nasbench201"
    title = "NAS-Bench-201 (Dong and Yang, ICLR 2020)"
    size = len(OPERATIONS) ** len(EDGES)
    form = str(Cell(("nor_conv_3x3", "none", "skip_connect", "none", "avg_pool_3x3", "nor_conv_1x1")))
    defaults = Defaults((1e-7, 1.0), "grey", 256)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the canonical architecture string."""
        return str(parse(text))

    def enumerate(self) -> Iterator[str]:
        """Yield all 15,625 in the index order of the benchmark."""
        yield from architectures()

    def draw(self, rng: random.Random) -> str:
        """Return a cell with an operation drawn for each edge."""
        return str(Cell(tuple(rng.choice(OPERATIONS) for _ in EDGES)))

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return `arch` with another operation on one edge."""
        operations = list(parse(arch).operations)
        edge = rng.randrange(len(EDGES))
        operations[edge] = rng.choice([operation for operation in OPERATIONS if operation != operations[edge]])
        return str(Cell(tuple(operations)))

    def decisions(self) -> Mapping[str, Choices]:
        """Return an operation for each edge, called `0-1` to `2-3`."""
        return {f"{source}-{target}": OPERATIONS for source, target in EDGES}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the cell of an operation for each edge."""
        return self.parse(str(Cell(tuple(str(choices[name]) for name in self.decisions()))))

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Return `count` different architectures drawn uniformly."""
        return sample(count, seed)

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the CIFAR network; see `build` of this module for its sizes."""
        return build(arch, **sizes)

    def build_live(self, arch: str) -> ir.Model:
        """Return the CIFAR network with cells that compute the same in fewer nodes: those of their function alone.

        Where no edge reaches a cell's output, nothing behind the first one is of any account, and there is one a stage.
        """
        cell = parse(arch)
        if not function_of(cell):
            return _build(GraphBuilder(self.name), cell, 16, 1, 1, build_cell)
        return _build(SharingBuilder(self.name), cell, 16, 5, 1, _live_cell)

    def family(self, arch: str) -> str:
        """Return what the cell computes, as text; all that compute nothing are one family."""
        return as_text(function_of(parse(arch))) or "nothing"

    def counts(self, arch: str) -> Counts:
        """Return the sizes of the CIFAR network: those without edges, and what each edge of the cells adds."""
        parameters, nodes = _WITHOUT_EDGES
        for operation in parse(arch).operations:
            for width in (16, 32, 64):
                kernel = {"nor_conv_1x1": 1, "nor_conv_3x3": 9}.get(operation)
                parameters += 0 if kernel is None else 5 * (kernel * width**2 + 2 * width)
                nodes += 5 * _EDGE_NODES[operation]
        return Counts(parameters, nodes)

    def file_name(self, arch: str) -> str:
        """Return a file name that shows the operations."""
        return file_name(arch)


def relu_conv_bn(
    b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int, stride: int = 1
) -> ir.Value:
    """Append ReLU, convolution and batch normalisation."""
    x = b.op("Relu", [x], f"{name}.relu")
    return b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, kernel, stride), f"{name}.bn", outputs)


def build_cell(b: GraphBuilder, x: ir.Value, cell: Cell, name: str, inputs: int, outputs: int) -> ir.Value:
    """Append a cell whose input has `inputs` channels and whose nodes have `outputs`."""
    nodes = [x]
    for target in (1, 2, 3):
        total: ir.Value | None = None
        for (source, end), operation in zip(EDGES, cell.operations, strict=True):
            if end == target:
                width = outputs if source else inputs
                value = _edge(b, nodes[source], operation, f"{name}.edge{source}-{target}", width, outputs)
                total = value if total is None else b.op("Add", [total, value], f"{name}.node{target}.add{source}")
        assert total is not None
        nodes.append(total)
    return nodes[3]


def _live_cell(b: GraphBuilder, x: ir.Value, cell: Cell, name: str, inputs: int, outputs: int) -> ir.Value:
    """Append what a cell computes, which is something, in as few nodes as its function takes."""
    return _sum_of(b, x, function_of(cell), name, outputs)


def _sum_of(b: GraphBuilder, x: ir.Value, terms: Sum, name: str, width: int) -> ir.Value:
    """Append a sum, one summand after the other; those that are pooled are added up first."""
    total: ir.Value | None = None
    plain = [term for term in terms if not term.poolings]
    for count, term in enumerate(plain, start=1):
        value = x
        if term.operation:
            inner = _sum_of(b, x, term.of, name, width)
            value = _edge(b, inner, term.operation, f"{name}.{as_text((term,))}", width, width)
        total = value if total is None else b.op("Add", [total, value], f"{name}.{as_text((*plain[:count],))}")
    pooled = _pooled_once_less(terms)
    if pooled:
        inner = _sum_of(b, x, pooled, name, width)
        value = _edge(b, inner, "avg_pool_3x3", f"{name}.p({as_text(pooled)})", width, width)
        total = value if total is None else b.op("Add", [total, value], f"{name}.{as_text(terms)}")
    assert total is not None
    return total


def _edge(b: GraphBuilder, x: ir.Value, operation: str, name: str, inputs: int, outputs: int) -> ir.Value:
    match operation:
        case "nor_conv_1x1":
            return relu_conv_bn(b, x, name, inputs, outputs, 1)
        case "nor_conv_3x3":
            return relu_conv_bn(b, x, name, inputs, outputs, 3)
    if inputs != outputs:  # what has no weights cannot change the width: a 1x1 convolution does
        x = b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, 1), f"{name}.bn", outputs)
    match operation:
        case "none":
            return b.op("Mul", [x, b.scalar(0.0, "zero")], f"{name}.none")
        case "skip_connect":
            return x
        case _:
            return b.op("AveragePool", [x], f"{name}.pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=0)


def residual_block(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
    """Append the residual block between stages, which halves height and width."""
    main = relu_conv_bn(b, x, f"{name}.a", inputs, outputs, 3, stride=2)
    main = relu_conv_bn(b, main, f"{name}.b", outputs, outputs, 3)
    pooled = b.op("AveragePool", [x], f"{name}.down.pool", kernel_shape=[2, 2], strides=[2, 2])
    short = b.conv(pooled, f"{name}.down.conv", inputs, outputs, 1)
    return b.op("Add", [short, main], f"{name}.add")


def head(b: GraphBuilder, x: ir.Value, width: int, classes: int) -> ir.Value:
    """Append batch normalisation, ReLU, global mean and the classifier."""
    x = b.op("Relu", [b.batch_norm(x, "head.bn", width)], "head.relu")
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "head.pool")], "head.flatten")
    return b.linear(x, "output", width, classes)
