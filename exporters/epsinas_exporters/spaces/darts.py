"""The DARTS search space (Liu et al., ICLR 2019): genotypes, published ones by name, and their ONNX graphs."""

from __future__ import annotations

import ast
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces.base import ArchitectureError, Choices, Defaults, SearchSpace, check_sizes, sizes_of

OPERATIONS = (
    "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"
)  # fmt: skip
"""The operations of the space; a genotype of another space may hold those of `OTHER_OPERATIONS` too."""
OTHER_OPERATIONS = ("sep_conv_7x7", "conv_7x1_1x7")
NODES = 4
"""Intermediate nodes of a cell of the space; each adds up two edges from earlier nodes or inputs."""

Edge = tuple[str, int]


@dataclass(frozen=True)
class Genotype:
    """A normal and a reduction cell: two edges (operation, source) for each node, and the nodes that are concatenated.

    Sources 0 and 1 are the outputs of the two cells before, sources from 2 on the cell's own nodes.
    """

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]

    def __str__(self) -> str:
        parts = (f"{name}={list(value)!r}" for name, value in vars(self).items())
        return f"Genotype({', '.join(parts)})"


def _published(
    normal: str, reduce: str, normal_concat: Sequence[int] = (2, 3, 4, 5), reduce_concat: Sequence[int] = (2, 3, 4, 5)
) -> Genotype:
    """Return a genotype out of words such as `sep_conv_3x3:0`, two for each node."""
    cells = []
    for text in (normal, reduce):
        edges = (word.rsplit(":", 1) for word in text.split())
        cells.append(tuple((name, int(source)) for name, source in edges))
    return Genotype(cells[0], tuple(normal_concat), cells[1], tuple(reduce_concat))


PUBLISHED = {
    "NASNet": _published(
        "sep_conv_5x5:1 sep_conv_3x3:0 sep_conv_5x5:0 sep_conv_3x3:0 avg_pool_3x3:1 skip_connect:0 avg_pool_3x3:0 "
        "avg_pool_3x3:0 sep_conv_3x3:1 skip_connect:1",
        "sep_conv_5x5:1 sep_conv_7x7:0 max_pool_3x3:1 sep_conv_7x7:0 avg_pool_3x3:1 sep_conv_5x5:0 skip_connect:3 "
        "avg_pool_3x3:2 sep_conv_3x3:2 max_pool_3x3:1",
        (2, 3, 4, 5, 6), (4, 5, 6),
    ),
    "AmoebaNet": _published(
        "avg_pool_3x3:0 max_pool_3x3:1 sep_conv_3x3:0 sep_conv_5x5:2 sep_conv_3x3:0 avg_pool_3x3:3 sep_conv_3x3:1 "
        "skip_connect:1 skip_connect:0 avg_pool_3x3:1",
        "avg_pool_3x3:0 sep_conv_3x3:1 max_pool_3x3:0 sep_conv_7x7:2 sep_conv_7x7:0 avg_pool_3x3:1 max_pool_3x3:0 "
        "max_pool_3x3:1 conv_7x1_1x7:0 sep_conv_3x3:5",
        (4, 5, 6), (3, 4, 6),
    ),
    "DARTS_V1": _published(
        "sep_conv_3x3:1 sep_conv_3x3:0 skip_connect:0 sep_conv_3x3:1 skip_connect:0 sep_conv_3x3:1 sep_conv_3x3:0 "
        "skip_connect:2",
        "max_pool_3x3:0 max_pool_3x3:1 skip_connect:2 max_pool_3x3:0 max_pool_3x3:0 skip_connect:2 skip_connect:2 "
        "avg_pool_3x3:0",
    ),
    "DARTS_V2": _published(
        "sep_conv_3x3:0 sep_conv_3x3:1 sep_conv_3x3:0 sep_conv_3x3:1 sep_conv_3x3:1 skip_connect:0 skip_connect:0 "
        "dil_conv_3x3:2",
        "max_pool_3x3:0 max_pool_3x3:1 skip_connect:2 max_pool_3x3:1 max_pool_3x3:0 skip_connect:2 skip_connect:2 "
        "max_pool_3x3:1",
    ),
    "PDARTS": _published(
        "skip_connect:0 dil_conv_3x3:1 skip_connect:0 sep_conv_3x3:1 sep_conv_3x3:1 sep_conv_3x3:3 sep_conv_3x3:0 "
        "dil_conv_5x5:4",
        "avg_pool_3x3:0 sep_conv_5x5:1 sep_conv_3x3:0 dil_conv_5x5:2 max_pool_3x3:0 dil_conv_3x3:1 dil_conv_3x3:1 "
        "dil_conv_5x5:3",
    ),
    "PC_DARTS_cifar": _published(
        "sep_conv_3x3:1 skip_connect:0 sep_conv_3x3:0 dil_conv_3x3:1 sep_conv_5x5:0 sep_conv_3x3:1 avg_pool_3x3:0 "
        "dil_conv_3x3:1",
        "sep_conv_5x5:1 max_pool_3x3:0 sep_conv_5x5:1 sep_conv_5x5:2 sep_conv_3x3:0 sep_conv_3x3:3 sep_conv_3x3:1 "
        "sep_conv_3x3:2",
    ),
}  # fmt: skip
"""Genotypes out of the repositories of DARTS, P-DARTS and PC-DARTS, by the names that they have there."""


def parse(text: str) -> Genotype:
    """Return the genotype of a published name, of `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`, or of JSON.

    The text is read as literals; nothing in it is run. Raises ArchitectureError that names the cell and the edge.
    """
    text = text.strip()
    if text in PUBLISHED:
        return PUBLISHED[text]
    fields = _fields(text)
    missing = [name for name in ("normal", "normal_concat", "reduce", "reduce_concat") if name not in fields]
    if missing:
        raise ArchitectureError(
            f"genotype {text[:60]!r} lacks {', '.join(missing)}; write it like {PUBLISHED['DARTS_V2']}"
        )
    cells = {name: _edges(name, fields[name]) for name in ("normal", "reduce")}
    concats = {name: _concat(name, fields[f"{name}_concat"], len(cells[name]) // 2) for name in cells}
    return Genotype(cells["normal"], concats["normal"], cells["reduce"], concats["reduce"])


def _fields(text: str) -> dict[str, object]:
    try:
        if text.startswith("{"):
            return dict(json.loads(text))
        call = ast.parse(text, mode="eval").body
        if isinstance(call, ast.Call) and not call.args and all(word.arg for word in call.keywords):
            return {str(word.arg): _literal(word.value) for word in call.keywords}
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        pass
    raise ArchitectureError(
        f"genotype {text[:60]!r} is neither one of {', '.join(PUBLISHED)} nor of the form {PUBLISHED['DARTS_V2']}"
    )


def _literal(node: ast.expr) -> object:
    """Return a literal, or the numbers of `range(2, 6)`, as DARTS' own files write it."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range" and not node.keywords:
        limits = [ast.literal_eval(argument) for argument in node.args]
        if len(limits) in (1, 2) and all(isinstance(limit, int) and 0 <= limit <= 99 for limit in limits):
            return list(range(*limits))
    return ast.literal_eval(node)


def _edges(cell: str, value: object) -> tuple[Edge, ...]:
    if not isinstance(value, (list, tuple)) or not value or len(value) % 2:
        raise ArchitectureError(f"the {cell} cell is no list of (operation, source) pairs, two for each node")
    edges = []
    for index, edge in enumerate(value):
        node = index // 2 + 2
        where = f"edge {index % 2} of node {node} in the {cell} cell"
        if not (isinstance(edge, (list, tuple)) and len(edge) == 2):
            raise ArchitectureError(f"{where} is {edge!r}, not an (operation, source) pair")
        name, source = edge
        if name not in OPERATIONS + OTHER_OPERATIONS:
            known = ", ".join(OPERATIONS + OTHER_OPERATIONS)
            raise ArchitectureError(f"{where} has the unknown operation {name!r}; known are {known}")
        if not isinstance(source, int) or not 0 <= source < node:
            raise ArchitectureError(f"{where} comes from {source!r}; it must come from one of 0 to {node - 1}")
        edges.append((str(name), source))
    return tuple(edges)


def _concat(cell: str, value: object, nodes: int) -> tuple[int, ...]:
    known = range(nodes + 2)
    if not isinstance(value, (list, tuple)) or not value or not all(isinstance(v, int) and v in known for v in value):
        raise ArchitectureError(f"the {cell} cell concatenates {value!r}; it must be a list of 0 to {nodes + 1}")
    return tuple(value)


def build(arch: str, *, channels: int = 36, layers: int = 20, classes: int = 1) -> ir.Model:
    """Return the CIFAR network of a genotype as an ONNX model, written directly, with no weight bytes, a free batch.

    A 3x3 stem of three times `channels`, `layers` cells of which those at one and at two thirds are reduction cells
    that double the width, global mean and a classifier of `classes` outputs; no auxiliary head, no drop path.

    Input `input`: float32 `[batch, 3, 32, 32]`. Output `output`: float32 `[batch, classes]`.
    Raises ArchitectureError for a bad genotype, and ValueError when a size is below 1.
    """
    genotype = parse(arch)
    check_sizes(channels=channels, layers=layers, classes=classes)
    b = GraphBuilder("darts")
    image = tensor_input("input", ["batch", 3, 32, 32])
    width = 3 * channels
    x = b.batch_norm(b.conv(image, "stem.conv", 3, width, 3), "stem.bn", width)
    states, widths = (x, x), (width, width)
    width, was_reduction = channels, False
    for layer in range(layers):
        reduction = layer in (layers // 3, 2 * layers // 3)
        width = 2 * width if reduction else width
        name = f"cell{layer}"
        if was_reduction:
            first = _factorized_reduce(b, states[0], f"{name}.preprocess0", widths[0], width)
        else:
            first = _relu_conv_bn(b, states[0], f"{name}.preprocess0", widths[0], width)
        second = _relu_conv_bn(b, states[1], f"{name}.preprocess1", widths[1], width)
        edges, concat = genotype.normal, genotype.normal_concat
        if reduction:
            edges, concat = genotype.reduce, genotype.reduce_concat
        made = _cell(b, [first, second], edges, concat, name, width, reduction)
        states, widths = (states[1], made), (widths[1], width * len(concat))
        was_reduction = reduction
    x = b.op("Flatten", [b.op("GlobalAveragePool", [states[1]], "head.pool")], "head.flatten")
    x = b.linear(x, "output", widths[1], classes)
    return b.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": str(genotype)})


def _cell(
    b: GraphBuilder, nodes: list[ir.Value], edges: Sequence[Edge], concat: Sequence[int], name: str, width: int,
    reduction: bool,
) -> ir.Value:  # fmt: skip
    for first in range(0, len(edges), 2):
        node = len(nodes)
        values = []
        for place, (operation, source) in enumerate(edges[first : first + 2]):
            stride = 2 if reduction and source < 2 else 1
            where = f"{name}.node{node}.edge{place}-{source}"
            values.append(_operation(b, nodes[source], operation, where, width, stride))
        nodes.append(b.op("Add", values, f"{name}.node{node}.add"))
    chosen = [nodes[index] for index in concat]
    return chosen[0] if len(chosen) == 1 else b.op("Concat", chosen, f"{name}.concat", axis=1)


def _operation(b: GraphBuilder, x: ir.Value, operation: str, name: str, width: int, stride: int) -> ir.Value:
    kind, _, size = operation.rpartition("_")
    match kind:
        case "max_pool":
            return b.op("MaxPool", [x], f"{name}.pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2)
        case "avg_pool":
            return b.op(
                "AveragePool", [x], f"{name}.pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[stride] * 2,
                count_include_pad=0,
            )  # fmt: skip
        case "skip":
            return x if stride == 1 else _factorized_reduce(b, x, name, width, width)
        case "sep_conv":
            x = _separable(b, x, f"{name}.first", width, int(size[0]), stride)
            return _separable(b, x, f"{name}.second", width, int(size[0]), 1)
        case "dil_conv":
            return _separable(b, x, name, width, int(size[0]), stride, dilation=2)
    x = b.op("Relu", [x], f"{name}.relu")
    for step, (height, across) in enumerate(((1, 7), (7, 1))):
        x = b.op(
            "Conv", [x, b.parameter(f"{name}.conv{step}.weight", [width, width, height, across])], f"{name}.conv{step}",
            kernel_shape=[height, across], pads=[height // 2, across // 2] * 2,
            strides=[stride if height > 1 else 1, stride if across > 1 else 1],
        )  # fmt: skip
    return b.batch_norm(x, f"{name}.bn", width)


def _separable(
    b: GraphBuilder, x: ir.Value, name: str, width: int, kernel: int, stride: int, dilation: int = 1
) -> ir.Value:
    """Append ReLU, depthwise convolution, 1x1 convolution and batch normalisation."""
    x = b.op("Relu", [x], f"{name}.relu")
    x = b.op(
        "Conv", [x, b.parameter(f"{name}.depthwise.weight", [width, 1, kernel, kernel])], f"{name}.depthwise",
        kernel_shape=[kernel, kernel], pads=[kernel // 2 * dilation] * 4, strides=[stride] * 2,
        dilations=[dilation] * 2, group=width,
    )  # fmt: skip
    return b.batch_norm(b.conv(x, f"{name}.pointwise", width, width, 1), f"{name}.bn", width)


def _relu_conv_bn(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
    x = b.op("Relu", [x], f"{name}.relu")
    return b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, 1), f"{name}.bn", outputs)


def _factorized_reduce(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int) -> ir.Value:
    """Append two 1x1 convolutions with stride 2, the second one pixel further, side by side."""
    x = b.op("Relu", [x], f"{name}.relu")
    shifted = b.op("Slice", [x, b.int64s([1, 1]), b.int64s([2**31, 2**31]), b.int64s([2, 3])], f"{name}.shifted")
    half = outputs // 2
    parts = [
        b.conv(x, f"{name}.conv0", inputs, half, 1, 2),
        b.conv(shifted, f"{name}.conv1", inputs, outputs - half, 1, 2),
    ]
    return b.batch_norm(b.op("Concat", parts, f"{name}.concat", axis=1), f"{name}.bn", outputs)


def _cells() -> Iterator[tuple[Edge, ...]]:
    """Yield every cell of the space: for each node two different sources, and an operation for each."""
    choices = [
        [
            ((first, source_a), (second, source_b))
            for source_a, source_b in itertools.combinations(range(node + 2), 2)
            for first, second in itertools.product(OPERATIONS, repeat=2)
        ]
        for node in range(NODES)
    ]
    for nodes in itertools.product(*choices):
        yield tuple(edge for node in nodes for edge in node)


class DARTS(SearchSpace):
    """The DARTS space; nobody has published constants for it; these score nearly all networks.

    A node has two different sources out of those before it (1, 3, 6 and 10 pairs) and 7 operations on either edge: a
    cell is one of 180 * 7^8, and a genotype holds two.
    """

    name = "darts"
    title = "DARTS (Liu et al., ICLR 2019)"
    size = (1 * 3 * 6 * 10 * len(OPERATIONS) ** (2 * NODES)) ** 2
    form = "DARTS_V2"
    defaults = Defaults((1e-3, 1.0), "grey", 256)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the genotype on one line, as DARTS writes it."""
        return str(parse(text))

    def enumerate(self) -> Iterator[str]:
        """Yield all 10^18 as long as somebody asks for the next."""
        concat = tuple(range(2, NODES + 2))
        return (str(Genotype(normal, concat, reduce, concat)) for normal in _cells() for reduce in _cells())

    def draw(self, rng: random.Random) -> str:
        """Return a genotype with two different sources and two operations drawn for each node."""
        cells = []
        for _ in range(2):
            edges: list[Edge] = []
            for node in range(NODES):
                sources = sorted(rng.sample(range(node + 2), 2))
                edges += [(rng.choice(OPERATIONS), source) for source in sources]
            cells.append(tuple(edges))
        concat = tuple(range(2, NODES + 2))
        return str(Genotype(cells[0], concat, cells[1], concat))

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return the genotype with another operation or another source on one edge of one cell."""
        genotype = parse(arch)
        cell = rng.choice(("normal", "reduce"))
        edges = list(getattr(genotype, cell))
        place = rng.randrange(len(edges))
        name, source = edges[place]
        sources = [other for other in range(place // 2 + 2) if other not in (source, edges[place ^ 1][1])]
        if sources and rng.random() < 0.5:
            edges[place] = (name, rng.choice(sources))
        else:
            edges[place] = (rng.choice([other for other in OPERATIONS if other != name]), source)
        return str(Genotype(**{**vars(genotype), cell: tuple(edges)}))

    def decisions(self) -> Mapping[str, Choices]:
        """Return for each node of either cell a pair of sources, such as `0-2`, and two operations."""
        found: dict[str, Choices] = {}
        for cell, node in itertools.product(("normal", "reduce"), range(NODES)):
            pairs = itertools.combinations(range(node + 2), 2)
            found[f"{cell}{node + 2}.sources"] = tuple(f"{first}-{second}" for first, second in pairs)
            found |= {f"{cell}{node + 2}.op{place}": OPERATIONS for place in range(2)}
        return found

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the genotype of two sources and two operations for each node."""
        cells = {}
        for cell in ("normal", "reduce"):
            edges: list[Edge] = []
            for node in range(NODES):
                sources = str(choices[f"{cell}{node + 2}.sources"]).split("-")
                edges += [(str(choices[f"{cell}{node + 2}.op{k}"]), int(sources[k])) for k in range(2)]
            cells[cell] = tuple(edges)
        concat = tuple(range(2, NODES + 2))
        return self.parse(str(Genotype(cells["normal"], concat, cells["reduce"], concat)))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the CIFAR network; see `build` of this module for its sizes."""
        return build(arch, **sizes)
