"""NAS-Bench-NLP (Klyuchnikov et al., IEEE Access 2022): recipes of recurrent cells, and their ONNX graphs."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_exporters.builder import GraphBuilder, tensor_input, typed_output
from epsinas_exporters.spaces.base import ArchitectureError, Defaults, NotEnumerable, SearchSpace, check_sizes, sizes_of

OPERANDS = {
    "linear": (2, 3),
    "blend": (3,),
    "elementwise_prod": (2,),
    "elementwise_sum": (2,),
    "activation_tanh": (1,),
    "activation_sigm": (1,),
    "activation_leaky_relu": (1,),
}
"""How many operands each operation takes."""
ACTIVATIONS = ("activation_tanh", "activation_sigm", "activation_leaky_relu")
LARGEST = 24
"""Nodes of the largest cell that `draw` makes before what is unused is left out; the benchmark's largest has 21."""

TOKENS, STEPS, EMBEDDING, HIDDEN = 10_000, 70, 400, 600
_SLOPE = 0.01
_HIDDEN_NAME = re.compile(r"h_(prev|new)_(\d+)")


@dataclass(frozen=True)
class Node:
    """One operation of a cell and the names of its operands: nodes, `x`, or a hidden state `h_prev_0`, `h_prev_1`..."""

    operation: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """A recurrent cell: its nodes in an order in which each comes after its operands.

    Nodes called `h_new_0`, `h_new_1`... become the hidden states of the next step; `h_new_0` is the cell's output.
    """

    nodes: Mapping[str, Node] = field(hash=False)

    def __str__(self) -> str:
        recipe = {name: {"op": node.operation, "input": node.operands} for name, node in self.nodes.items()}
        return json.dumps(recipe, separators=(",", ":"))

    @property
    def states(self) -> int:
        """Return how many hidden states there are."""
        return sum(name.startswith("h_new_") and _HIDDEN_NAME.fullmatch(name) is not None for name in self.nodes)


def parse(text: str) -> Recipe:
    """Return the cell of a recipe, `{"node_0": {"op": "linear", "input": ["x", "h_prev_0"]}, "h_new_0": ...}`.

    Raises ArchitectureError that names the node that is wrong.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise ArchitectureError(f"recipe {text[:60]!r} is no JSON ({error}); write it like {EXAMPLE}") from None
    if not isinstance(data, dict) or not all(isinstance(node, dict) for node in data.values()):
        raise ArchitectureError(f"recipe {text[:60]!r} is no JSON object of nodes; write it like {EXAMPLE}")
    nodes = {}
    for name, node in data.items():
        operands = node.get("input")
        if not isinstance(operands, list) or not all(isinstance(operand, str) for operand in operands):
            raise ArchitectureError(f"node {name!r} has no list of operand names under 'input'")
        nodes[name] = Node(str(node.get("op")), tuple(operands))
    return checked(nodes)


def checked(nodes: Mapping[str, Node]) -> Recipe:
    """Return the recipe of `nodes` in an order of computation; raises ArchitectureError."""
    states = {name for name in nodes if name.startswith("h_new_") and _HIDDEN_NAME.fullmatch(name)}
    if states != {f"h_new_{index}" for index in range(len(states))} or not states:
        raise ArchitectureError(
            f"the recipe's new hidden states are {', '.join(sorted(states)) or 'none'}; they are counted from h_new_0"
        )
    for name, node in nodes.items():
        if node.operation not in OPERANDS:
            raise ArchitectureError(
                f"node {name!r} has the unknown operation {node.operation!r}; known are {', '.join(OPERANDS)}"
            )
        if len(node.operands) not in OPERANDS[node.operation]:
            wanted = " or ".join(map(str, OPERANDS[node.operation]))
            raise ArchitectureError(f"node {name!r} ({node.operation}) has {len(node.operands)} operands, not {wanted}")
        for operand in node.operands:
            previous = operand.startswith("h_prev_") and operand.replace("prev", "new", 1) in states
            if operand == "x" and node.operation != "linear":
                raise ArchitectureError(
                    f"node {name!r} ({node.operation}) takes the input x, whose width is not that of the hidden "
                    f"states; only linear does"
                )
            if operand not in nodes and operand != "x" and not previous:
                raise ArchitectureError(
                    f"node {name!r} takes {operand!r}, which is no node, not x, and no hidden state of the recipe"
                )
    needs = {name: [o for o in node.operands if o in nodes] for name, node in nodes.items()}
    try:
        order = list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        raise ArchitectureError(f"the nodes {' -> '.join(error.args[1])} take each other as operands") from None
    return Recipe({name: nodes[name] for name in order})


def pruned(nodes: Mapping[str, Node]) -> dict[str, Node]:
    """Return the nodes that some new hidden state is computed from."""
    wanted = [name for name in nodes if _HIDDEN_NAME.fullmatch(name)]
    kept: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in nodes and name not in kept:
            kept.add(name)
            wanted += nodes[name].operands
    return {name: node for name, node in nodes.items() if name in kept}


def build(
    arch: str,
    *,
    embedding: npt.NDArray[np.float32] | None = None,
    layers: int = 3,
    steps: int = STEPS,
    width: int = EMBEDDING,
    hidden: int = HIDDEN,
    tokens: int = TOKENS,
) -> ir.Model:
    """Return the language model of a recipe as an ONNX model without weight bytes, its batch free.

    An embedding of `width` features, `layers` layers of the cell with `hidden` features, `width` in the last one
    (its weights are tied to the embedding's), and no dropout. Biases and initial hidden states are weights, as in the
    epsinas paper: their roles are written into the graph.

    Each layer is one Scan over the steps: unrolled, the file is 40 times larger and a score takes 17 times as long; a
    Loop costs about the same as Scan, and needs a counter and a condition beside it (benchmarks/recurrence.py).

    embedding: the table, float32 `[tokens, width]`, stored in the file and kept; without it there is none in the
    file, and the scorer draws it from U(0, 1).

    Input `tokens`: int64 `[batch, steps]`. Output `output`: float32 `[batch, steps]`, feature 0 of the last layer.
    Raises ArchitectureError for a bad recipe, and ValueError for a size below 1 or a table of another shape.
    """
    recipe = parse(arch)
    check_sizes(layers=layers, steps=steps, width=width, hidden=hidden, tokens=tokens)
    b = GraphBuilder("nasbenchnlp")
    text = tensor_input("tokens", ["batch", steps], ir.DataType.INT64)
    if embedding is None:
        table = b.parameter("embedding.weight", [tokens, width])
    else:
        if embedding.shape != (tokens, width):
            raise ValueError(f"the embedding has the shape {list(embedding.shape)}, not {[tokens, width]}")
        table = b.floats(embedding, "embedding.weight")
    x = b.op("Gather", [table, b.op("Transpose", [text], "tokens.by_step", perm=[1, 0])], "embedding", axis=0)
    _role(x, 0, "embedding" if embedding is None else "constant")
    batch = b.op("Shape", [text], "tokens.batch", start=0, end=1)
    inputs = width
    for layer in range(layers):
        outputs = width if layer == layers - 1 else hidden
        cell = CellWriter(b, recipe, f"layer{layer}", inputs, outputs)
        x = scanned(b, cell, x, cell.initial_states(batch))
        inputs = outputs
    first = b.op("Gather", [x, b.int64_scalar(0)], "output.feature0", axis=2)
    out = b.op("Transpose", [first], "output", perm=[1, 0])
    return b.model([text], [typed_output(out, ["batch", steps])], **{"epsinas.arch": str(recipe)})


class CellWriter:
    """Writes one layer's cell, whose parameters lie in the main graph."""

    def __init__(self, b: GraphBuilder, recipe: Recipe, name: str, inputs: int, outputs: int) -> None:
        self.recipe, self.name, self.outputs = recipe, name, outputs
        self._weights: dict[tuple[str, int], ir.Value] = {}
        self._biases: dict[str, ir.Value] = {}
        for label, node in recipe.nodes.items():
            if node.operation == "linear":
                for slot, operand in enumerate(node.operands):
                    shape = [inputs if operand == "x" else outputs, outputs]
                    self._weights[label, slot] = b.parameter(f"{name}.{label}.weight{slot}", shape)
                self._biases[label] = b.parameter(f"{name}.{label}.bias", [outputs])
        self._b = b

    def initial_states(self, batch: ir.Value) -> list[ir.Value]:
        """Return the hidden states before the first step, `[batch, outputs]` each."""
        b = self._b
        shape = b.op("Concat", [batch, b.int64s([self.outputs])], f"{self.name}.state.shape", axis=0)
        states = []
        for index in range(self.recipe.states):
            start = b.parameter(f"{self.name}.h_0_{index}", [1, self.outputs])
            states.append(b.op("Expand", [start, shape], f"{self.name}.h_prev_{index}.start"))
            _role(states[-1], 0, "weight")
        return states

    def step(self, b: GraphBuilder, x: ir.Value, states: Sequence[ir.Value], name: str) -> list[ir.Value]:
        """Append one step and return the new hidden states."""
        made = {"x": x, **{f"h_prev_{index}": state for index, state in enumerate(states)}}
        for label, node in self.recipe.nodes.items():
            operands = [made[operand] for operand in node.operands]
            made[label] = self._node(b, label, node.operation, operands, f"{name}.{label}")
        return [made[f"h_new_{index}"] for index in range(self.recipe.states)]

    def _node(self, b: GraphBuilder, label: str, operation: str, operands: Sequence[ir.Value], name: str) -> ir.Value:
        match operation:
            case "linear":
                bias = self._biases[label]
                total = b.op("Gemm", [operands[0], self._weights[label, 0], bias], f"{name}.matmul0")
                _role(total, 2, "weight")
                for slot, operand in enumerate(operands[1:], start=1):
                    product = b.op("MatMul", [operand, self._weights[label, slot]], f"{name}.matmul{slot}")
                    total = b.op("Add", [total, product], f"{name}.add{slot}")
                return total
            case "blend":
                gate, first, second = operands
                kept = b.op("Mul", [gate, first], f"{name}.kept")
                rest = b.op("Sub", [_one(b), gate], f"{name}.rest")
                return b.op("Add", [kept, b.op("Mul", [rest, second], f"{name}.taken")], name)
            case "elementwise_prod":
                return b.op("Mul", operands, name)
            case "elementwise_sum":
                return b.op("Add", operands, name)
            case "activation_tanh":
                return b.op("Tanh", operands, name)
            case "activation_sigm":
                return b.op("Sigmoid", operands, name)
            case _:
                return b.op("LeakyRelu", operands, name, alpha=_SLOPE)


def scanned(b: GraphBuilder, cell: CellWriter, x: ir.Value, starts: Sequence[ir.Value]) -> ir.Value:
    """Append a Scan of the cell over the steps and return the outputs of all steps, `[steps, batch, outputs]`."""
    body = GraphBuilder(f"{cell.name}.cell")
    given = ir.Value(name=f"{cell.name}.x", type=ir.TensorType(ir.DataType.FLOAT))
    states = [
        ir.Value(name=f"{cell.name}.h_prev_{index}", type=ir.TensorType(ir.DataType.FLOAT))
        for index in range(len(starts))
    ]
    made = cell.step(body, given, states, cell.name)
    outputs = [body.op("Identity", [value], f"{cell.name}.state{index}") for index, value in enumerate(made)]
    outputs.append(body.op("Identity", [made[0]], f"{cell.name}.step"))
    for value in outputs:
        value.type = ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph(
        [*states, given], outputs, nodes=body.nodes, initializers=list(body.initializers.values()), name=body.name
    )
    count = len(starts)
    b.op("Scan", [*starts, x], f"{cell.name}.scan", outputs=count + 1, body=graph, num_scan_inputs=1)
    return b.nodes[-1].outputs[count]


def _one(b: GraphBuilder) -> ir.Value:
    return b.scalar(1.0, f"{b.name}.one")


def _role(value: ir.Value, slot: int, role: str) -> None:
    """Write into the node that makes `value` what its operand in `slot` is, for the scorer."""
    node = value.producer()
    assert node is not None
    node.metadata_props[f"epsinas.role.{slot}"] = role


EXAMPLE = str(
    Recipe({"node_0": Node("linear", ("x", "h_prev_0")), "h_new_0": Node("activation_tanh", ("node_0",))})
)  # fmt: skip


class NASBenchNLP(SearchSpace):
    """The recurrent cells of NAS-Bench-NLP, which has no list of all of them: the benchmark drew 14,322 at random."""

    name = "nasbenchnlp"
    title = "NAS-Bench-NLP (Klyuchnikov et al., IEEE Access 2022)"
    size = None
    form = EXAMPLE
    defaults = Defaults((1e-5, 1e-3), "tokens", 32)
    sizes = sizes_of(build)

    def parse(self, text: str) -> str:
        """Return the recipe as compact JSON, its nodes in an order of computation."""
        return str(parse(text))

    def enumerate(self) -> Iterator[str]:
        """Raise NotEnumerable."""
        raise NotEnumerable("NAS-Bench-NLP has no list of all its recipes; draw some of them at random")

    def draw(self, rng: random.Random) -> str:
        """Return a cell grown node by node from random operations, without the nodes that nothing uses."""
        while True:
            states = rng.randint(1, 3)
            sources = [f"h_prev_{index}" for index in range(states)]
            nodes = {"node_0": Node("linear", ("x", rng.choice(sources)))}
            for index in range(1, rng.randint(states + 1, LARGEST)):
                nodes[f"node_{index}"] = _random_node([*sources, *nodes], rng)
            kept = pruned(_renamed(nodes, states))
            if any("x" in node.operands for node in kept.values()):
                return str(checked(kept))

    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return the recipe with another operation or another operand in one node."""
        recipe = parse(arch)
        while True:
            nodes = dict(recipe.nodes)
            names = list(nodes)
            name = rng.choice(names)
            earlier = [f"h_prev_{index}" for index in range(recipe.states)] + names[: names.index(name)]
            node = nodes[name]
            if rng.random() < 0.5:
                same = [o for o, counts in OPERANDS.items() if len(node.operands) in counts and o != node.operation]
                nodes[name] = Node(rng.choice(same), node.operands) if same else node
            else:
                slot = rng.randrange(len(node.operands))
                choices = [*earlier, "x"] if node.operation == "linear" else earlier
                nodes[name] = Node(node.operation, tuple(
                    rng.choice(choices) if place == slot else operand for place, operand in enumerate(node.operands)
                ))  # fmt: skip
            kept = pruned(nodes)
            if not any("x" in node.operands for node in kept.values()):
                continue
            try:
                changed = str(checked(kept))
            except ArchitectureError:  # an activation became a node that takes x
                continue
            if changed != str(recipe):
                return changed

    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the language model of 3 layers and 70 steps; see `build` of this module for a given embedding."""
        return build(arch, **sizes)  # type: ignore[arg-type]

    def from_row(self, row: Mapping[str, str]) -> str:
        """Return the recipe in the column `recepie` (the benchmark's spelling), `recipe` or `arch`."""
        for column in ("recepie", "recipe"):
            if row.get(column):
                return self.parse(row[column])
        return super().from_row(row)


def _random_node(sources: Sequence[str], rng: random.Random) -> Node:
    operation = rng.choice(list(OPERANDS))
    count = rng.choice(OPERANDS[operation])
    choices = [*sources, "x"] if operation == "linear" else list(sources)
    return Node(operation, tuple(rng.choice(choices) for _ in range(count)))


def _renamed(nodes: Mapping[str, Node], states: int) -> dict[str, Node]:
    """Return the nodes with the last ones called h_new_0, h_new_1..."""
    names = {name: f"h_new_{index}" for index, name in enumerate(list(nodes)[-states:])}
    return {
        names.get(name, name): Node(node.operation, tuple(names.get(operand, operand) for operand in node.operands))
        for name, node in nodes.items()
    }
