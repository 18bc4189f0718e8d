"""NAS-Bench-101 (Ying et al., ICML 2019): cells, their pruning and isomorphism hash, and their ONNX graphs."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces.base import ArchitectureError, Choices, Defaults, SearchSpace, check_sizes, sizes_of
from epsinas_exporters.spaces.nasbench101_cells import INPUT, MAX_EDGES, MAX_VERTICES, OPERATIONS, OUTPUT, Matrix

_PATIENCE = 50  # attempts at a mutation of so many changes before one more is allowed


@dataclass(frozen=True)
class Cell:
    """A pruned cell: an upper-triangular adjacency matrix and an operation a vertex, `input` and `output` included."""

    matrix: Matrix
    operations: tuple[str, ...]

    def __str__(self) -> str:
        return json.dumps({"matrix": self.matrix, "ops": self.operations}, separators=(",", ":"))

    @property
    def edges(self) -> int:
        """Return how many edges there are."""
        return sum(map(sum, self.matrix))


def parse(text: str) -> Cell:
    """Return the pruned cell that JSON `{"matrix": [[0, 1], [0, 0]], "ops": ["input", "output"]}` describes.

    `module_adjacency` and `module_operations`, the benchmark's own names, are understood too. Raises ArchitectureError
    that names what is wrong when the text is no such JSON, or the cell is outside the space.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArchitectureError(f"cell {_short(text)} is no JSON ({error}); write it like {EXAMPLE}") from None
    if not isinstance(data, dict):
        raise ArchitectureError(f"cell {_short(text)} is no JSON object; write it like {EXAMPLE}")
    matrix = data.get("matrix", data.get("module_adjacency"))
    operations = data.get("ops", data.get("module_operations"))
    if matrix is None or operations is None:
        raise ArchitectureError(f"cell {_short(text)} lacks 'matrix' or 'ops'; write it like {EXAMPLE}")
    return checked(matrix, operations)


def checked(matrix: Sequence[Sequence[int]], operations: Sequence[str]) -> Cell:
    """Return the pruned cell of an adjacency matrix and its operations; raises ArchitectureError.

    As in the benchmark, the limits of 7 vertices and 9 edges hold for the pruned cell: what it does not hold is never
    computed.
    """
    try:
        rows = tuple(tuple(int(entry) for entry in row) for row in matrix)
        names = tuple(str(name) for name in operations)
    except (TypeError, ValueError):
        raise ArchitectureError(f"the adjacency matrix {_short(matrix)} is no matrix of 0 and 1") from None
    size = len(rows)
    if size < 2 or any(len(row) != size for row in rows):
        raise ArchitectureError(f"the adjacency matrix {_short(matrix)} is not square with at least 2 vertices")
    if len(names) != size:
        raise ArchitectureError(f"the cell has {size} vertices and {len(names)} operations; give one for each vertex")
    for source, row in enumerate(rows):
        for target, entry in enumerate(row):
            if entry not in (0, 1) or (entry and target <= source):
                raise ArchitectureError(
                    f"entry ({source}, {target}) of the adjacency matrix is {entry}; edges are 1 and go from a vertex "
                    f"to a later one, so all is 0 on the diagonal and below it"
                )
    if names[0] != INPUT or names[-1] != OUTPUT:
        raise ArchitectureError(f"the first operation is {names[0]!r} and the last {names[-1]!r}, not input and output")
    for vertex, name in enumerate(names[1:-1], start=1):
        if name not in OPERATIONS:
            raise ArchitectureError(f"vertex {vertex} has the operation {name!r}; known are {', '.join(OPERATIONS)}")
    cell = pruned(rows, names)
    if cell is None:
        raise ArchitectureError("no path leads from the input to the output of the cell")
    if len(cell.operations) > MAX_VERTICES or cell.edges > MAX_EDGES:
        raise ArchitectureError(
            f"the pruned cell has {len(cell.operations)} vertices and {cell.edges} edges; NAS-Bench-101 holds cells of "
            f"up to {MAX_VERTICES} and {MAX_EDGES}"
        )
    return cell


def pruned(matrix: Matrix, operations: Sequence[str]) -> Cell | None:
    """Return the cell without vertices that are on no path from input to output; None where there is no path."""
    last = len(matrix) - 1
    ahead, behind = {0}, {last}
    for vertex in range(last + 1):
        if vertex in ahead:
            ahead.update(target for target in range(last + 1) if matrix[vertex][target])
    for vertex in range(last, -1, -1):
        if vertex in behind:
            behind.update(source for source in range(last + 1) if matrix[source][vertex])
    kept = sorted(ahead & behind)
    if last not in ahead:
        return None
    return Cell(tuple(tuple(matrix[a][b] for b in kept) for a in kept), tuple(operations[vertex] for vertex in kept))


def isomorphism_hash(cell: Cell) -> str:
    """Return the benchmark's hash of a cell: 32 hex digits, equal for isomorphic cells.

    Source: the appendix of the NAS-Bench-101 paper: each vertex starts with a digest of its degrees and its operation,
    takes in the sorted digests of its neighbours once for every vertex, and the sorted digests are digested.
    """
    size = len(cell.matrix)
    vertices = range(size)
    labels = [-1, *(OPERATIONS.index(name) for name in cell.operations[1:-1]), -2]
    digests = [
        _md5(str((sum(cell.matrix[v]), sum(row[v] for row in cell.matrix), labels[v]))) for v in vertices
    ]  # fmt: skip
    for _ in vertices:
        digests = [
            _md5(
                "".join(sorted(digests[w] for w in vertices if cell.matrix[w][v])) + "|"
                + "".join(sorted(digests[w] for w in vertices if cell.matrix[v][w])) + "|" + digests[v]
            )
            for v in vertices
        ]  # fmt: skip
    return _md5(str(sorted(digests)))


def vertex_channels(cell: Cell, inputs: int, outputs: int) -> list[int]:
    """Return how many channels each vertex holds, as the benchmark divides them.

    Vertices that end in the output share its channels, the first ones taking the rest of the division; every other
    interior vertex holds as many as the widest vertex that it feeds.
    """
    last = len(cell.matrix) - 1
    channels = [inputs, *[0] * (last - 1), outputs]
    ending = [vertex for vertex in range(1, last) if cell.matrix[vertex][last]]
    for place, vertex in enumerate(ending):
        channels[vertex] = outputs // len(ending) + (place < outputs % len(ending))
    for vertex in range(last - 1, 0, -1):
        if vertex not in ending:
            channels[vertex] = max(
                channels[target] for target in range(vertex + 1, last) if cell.matrix[vertex][target]
            )
    return channels


def build(arch: str, *, channels: int = 128, stacks: int = 3, cells: int = 3, classes: int = 1) -> ir.Model:
    """Return the network of the cell `arch` as an ONNX model, written directly, without weight bytes, its batch free.

    The network is the benchmark's CIFAR one: a 3x3 stem of `channels`, `stacks` stacks of `cells` cells with a 2x2
    max-pooling and twice the channels between stacks, global mean, and a classifier of `classes` outputs (1 in the
    epsinas paper). Convolution, batch normalisation and ReLU always go together, in projections too.

    Input `input`: float32 `[batch, 3, 32, 32]`. Output `output`: float32 `[batch, classes]`.
    Raises ArchitectureError for a bad cell, and ValueError when a size is below 1.
    """
    cell = parse(arch)
    check_sizes(channels=channels, stacks=stacks, cells=cells, classes=classes)
    b = GraphBuilder("nasbench101")
    image = tensor_input("input", ["batch", 3, 32, 32])
    x = _conv_bn_relu(b, image, "stem", 3, channels, 3)
    width = channels
    for stack in range(stacks):
        if stack:
            x = b.op("MaxPool", [x], f"stack{stack}.down", kernel_shape=[2, 2], strides=[2, 2])
        for index in range(cells):
            outputs = channels * 2**stack
            x = _cell(b, x, cell, f"stack{stack}.cell{index}", width, outputs)
            width = outputs
    x = b.op("Flatten", [b.op("GlobalAveragePool", [x], "head.pool")], "head.flatten")
    x = b.linear(x, "output", width, classes)
    return b.model([image], [typed_output(x, ["batch", classes])], **{"epsinas.arch": str(cell)})


def _conv_bn_relu(b: GraphBuilder, x: ir.Value, name: str, inputs: int, outputs: int, kernel: int) -> ir.Value:
    x = b.batch_norm(b.conv(x, f"{name}.conv", inputs, outputs, kernel), f"{name}.bn", outputs)
    return b.op("Relu", [x], f"{name}.relu")


def _cell(b: GraphBuilder, x: ir.Value, cell: Cell, name: str, inputs: int, outputs: int) -> ir.Value:
    last = len(cell.matrix) - 1
    channels = vertex_channels(cell, inputs, outputs)
    held = {0: x}
    for vertex in range(1, last):
        where = f"{name}.vertex{vertex}"
        summands = [
            _truncated(b, held[source], f"{where}.from{source}", channels[source], channels[vertex])
            for source in range(1, vertex)
            if cell.matrix[source][vertex]
        ]
        if cell.matrix[0][vertex]:
            summands.append(_conv_bn_relu(b, x, f"{where}.projection", inputs, channels[vertex], 1))
        held[vertex] = _operation(b, _sum(b, summands, where), cell.operations[vertex], where, channels[vertex])
    ending = [held[vertex] for vertex in range(1, last) if cell.matrix[vertex][last]]
    parts = []
    if ending:
        parts.append(ending[0] if len(ending) == 1 else b.op("Concat", ending, f"{name}.concat", axis=1))
    if cell.matrix[0][last]:
        parts.append(_conv_bn_relu(b, x, f"{name}.projection", inputs, outputs, 1))
    return _sum(b, parts, f"{name}.output")


def _operation(b: GraphBuilder, x: ir.Value, operation: str, name: str, width: int) -> ir.Value:
    if operation == "maxpool3x3":
        return b.op("MaxPool", [x], f"{name}.pool", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return _conv_bn_relu(b, x, name, width, width, 3 if operation == "conv3x3-bn-relu" else 1)


def _truncated(b: GraphBuilder, x: ir.Value, name: str, held: int, wanted: int) -> ir.Value:
    """Return the first `wanted` of the channels: vertices that share the output differ by one."""
    if held == wanted:
        return x
    return b.op("Slice", [x, b.int64s([0]), b.int64s([wanted]), b.int64s([1])], f"{name}.truncate")


def _sum(b: GraphBuilder, values: Sequence[ir.Value], name: str) -> ir.Value:
    total = values[0]
    for index, value in enumerate(values[1:], start=1):
        total = b.op("Add", [total, value], f"{name}.add{index}")
    return total


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _short(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= 60 else text[:57] + "...")


EXAMPLE = str(Cell(((0, 1, 0), (0, 0, 1), (0, 0, 0)), (INPUT, OPERATIONS[0], OUTPUT)))


class NASBench101(SearchSpace):
    """The cells of NAS-Bench-101: directed acyclic graphs of up to 7 vertices and 9 edges."""

    name = "nasbench101"
    title = "NAS-Bench-101 (Ying et al., ICML 2019)"
    size = 423_624
    form = EXAMPLE
    # Grey ramps rank this space badly, noise as well as images do: docs/reproduction.md.
    defaults = Defaults((1e-4, 10.0), "normal", 256)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the pruned cell as compact JSON; isomorphic cells keep the vertex order that they came in."""
        return str(parse(text))

    def enumerate(self) -> Iterator[str]:
        """Yield one cell of each isomorphism class, those of few vertices first."""
        from epsinas_exporters.spaces.nasbench101_all import unique_cells

        for matrix, operations in unique_cells():
            yield str(Cell(matrix, operations))

    def draw(self, rng: random.Random) -> str:
        """Return a cell drawn with 7 vertices before pruning, until it lies inside the space."""
        while True:
            matrix = [[int(b > a and rng.random() < 0.5) for b in range(MAX_VERTICES)] for a in range(MAX_VERTICES)]
            operations = [INPUT, *(rng.choice(OPERATIONS) for _ in range(MAX_VERTICES - 2)), OUTPUT]
            try:
                return str(checked(matrix, operations))
            except ArchitectureError:
                continue

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return a cell that differs from `arch` in one edge or one operation, and is not isomorphic to it.

        As in the benchmark's own evolution, vertices that pruning removed come back without edges, so that they can
        be connected again.
        """
        cell = parse(arch)
        before = isomorphism_hash(cell)
        places = list(itertools.combinations(range(MAX_VERTICES), 2))
        for attempt in itertools.count():
            matrix, operations = _grown(cell, rng)
            for _ in range(1 + attempt // _PATIENCE):  # a cell of one edge has no neighbour that is one edge away
                choice = rng.randrange(len(places) + MAX_VERTICES - 2)
                if choice < len(places):
                    a, b = places[choice]
                    matrix[a][b] ^= 1
                else:
                    vertex = choice - len(places) + 1
                    operations[vertex] = rng.choice([name for name in OPERATIONS if name != operations[vertex]])
            try:
                changed = checked(matrix, operations)
            except ArchitectureError:
                continue
            if isomorphism_hash(changed) != before:
                return str(changed)
        raise AssertionError("every cell has a neighbour")

    def decisions(self) -> Mapping[str, Choices]:
        """Return whether there is an edge, `0-1` to `5-6`, and an operation for each inner vertex, `op1` to `op5`."""
        edges = {f"{a}-{b}": (0, 1) for a, b in itertools.combinations(range(MAX_VERTICES), 2)}
        return {**edges, **{f"op{vertex}": OPERATIONS for vertex in range(1, MAX_VERTICES - 1)}}

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the pruned cell; raises ArchitectureError for more than 9 edges, or no path to the output."""
        matrix = [[int(choices.get(f"{a}-{b}", 0)) for b in range(MAX_VERTICES)] for a in range(MAX_VERTICES)]
        inner = [str(choices[f"op{vertex}"]) for vertex in range(1, MAX_VERTICES - 1)]
        return str(checked(matrix, [INPUT, *inner, OUTPUT]))

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the CIFAR network; see `build` of this module for its sizes."""
        return build(arch, **sizes)

    def from_row(self, row: Mapping[str, str]) -> str:
        """Return the cell in the columns `adjacency` (0 and 1, row by row) and `ops` (with commas), or in `arch`."""
        digits, names = row.get("adjacency"), row.get("ops")
        if not digits or not names:
            return super().from_row(row)
        size = len(names.split(","))
        if len(digits) != size**2:
            raise ArchitectureError(f"the adjacency {_short(digits)} has {len(digits)} entries for {size} operations")
        if not set(digits) <= {"0", "1"}:
            raise ArchitectureError(f"the adjacency {_short(digits)} holds more than 0 and 1")
        matrix = [[int(digit) for digit in digits[row * size : (row + 1) * size]] for row in range(size)]
        return str(checked(matrix, names.split(",")))

    def file_name(self, arch: str) -> str:
        """Return a file name with the benchmark's hash of the cell."""
        return f"nb101-{isomorphism_hash(parse(arch))}.onnx"


def _grown(cell: Cell, rng: random.Random) -> tuple[list[list[int]], list[str]]:
    """Return the cell with unconnected vertices added before the output, up to `MAX_VERTICES`."""
    last = len(cell.matrix) - 1
    spare = MAX_VERTICES - len(cell.matrix)
    matrix = [[*row[:last], *[0] * spare, row[last]] for row in cell.matrix[:last]]
    matrix += [[0] * MAX_VERTICES for _ in range(spare + 1)]
    operations = [*cell.operations[:last], *(rng.choice(OPERATIONS) for _ in range(spare)), OUTPUT]
    return matrix, operations
