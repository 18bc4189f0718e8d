"""Takes the fingerprint of a weightless graph: the same for every export of one architecture, whatever was trained."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.learned import learned_tensors
from epsinas_onnx.graph.analysis.roles import Role, decide_roles
from epsinas_onnx.graph.analysis.shapes import input_specs, model_inputs
from epsinas_onnx.graph.attributes import attribute_texts, counts_outputs
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.passes.float_rewriter import Dequantised
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes, set_input_shapes, weights_have_shapes
from epsinas_onnx.graph.tensor_summary import Stored, find_stored
from epsinas_onnx.graph.traversal import StaticValues

_DIGITS = 32
_SAMPLES = 2
_CALIBRATED = frozenset({"DequantizeLinear", "QuantizeLinear"})
"""Operators whose stored operands behind the first are measured on data."""
_TELLING = frozenset({"Resize", "Upsample", "OneHot"})
"""Operators whose stored operands behind the first are architecture even where they are several floats."""


@dataclass(frozen=True)
class Operand:
    """What a node reads in one slot.

    role: of a stored tensor, or of what is computed from stored ones; empty for everything else, constants included.
    what: type, shape and, where it counts, the value of a stored tensor; empty for what is computed, and `-` for an
    operand that is left out. source: `%LINE` or `%LINE.OUTPUT` for what a node makes, `inN` for an input of the model,
    `@BODY.N` for one of a body, `#N` for a stored table, whose sharing counts; empty otherwise.
    """

    role: str
    what: str
    source: str

    @property
    def kind(self) -> str:
        """Return role and stored tensor: what can be compared without the rest of the graph."""
        return f"{self.role}:{self.what}" if self.role else self.what

    def __str__(self) -> str:
        return f"{self.kind}{self.source}"


@dataclass(frozen=True)
class Line:
    """One node. node: its name in the file, which does not count. place: the bodies that it is in, outermost first.

    operator: with its domain where that is not the standard one. body: the number of the body that it is in, 0 for
    the main graph. operands: without those left out at the end. results: what its bodies give. outputs: how many it
    has, 0 where that says nothing.
    """

    node: str
    place: str
    body: int
    operator: str
    attributes: tuple[tuple[str, str], ...]
    operands: tuple[Operand, ...]
    results: tuple[Operand, ...] = ()
    outputs: int = 0

    @cached_property
    def kind(self) -> str:
        """Return all that can be compared without the rest of the graph."""
        read = ", ".join(operand.kind for operand in self.operands)
        return f"{self.place}{self.operator}({read}) {self._options}"

    @property
    def text(self) -> str:
        """Return the line as the fingerprint reads it."""
        given = ", ".join(map(str, self.results))
        return f"{self.body} {self.operator}({', '.join(map(str, self.operands))}) -> ({given}) {self._options}"

    @property
    def _options(self) -> str:
        return f"{self.outputs} {', '.join(f'{name}={text}' for name, text in self.attributes)}"


@dataclass(frozen=True)
class CanonicalGraph:
    """A graph without names: its lines in an order that follows from the operands alone, dead nodes left out.

    inputs, outputs: type and declared shape of each, as text. results: what the outputs are. quantised: how much
    integer arithmetic was turned back into float, empty where none was.
    """

    inputs: tuple[str, ...]
    lines: tuple[Line, ...]
    outputs: tuple[str, ...]
    results: tuple[Operand, ...]
    quantised: str

    @cached_property
    def fingerprint(self) -> str:
        """Return the first 32 hexadecimal digits of the SHA-256 of all that counts."""
        parts = [f"in {text}" for text in self.inputs]
        parts += [line.text for line in self.lines]
        parts += [f"out {operand} {text}" for operand, text in zip(self.results, self.outputs, strict=True)]
        return hashlib.sha256("\n".join([*parts, self.quantised]).encode()).hexdigest()[:_DIGITS]


def fingerprint(model: ModelSource) -> str:
    """Return the fingerprint of the weightless graph of `model`: 32 hexadecimal digits.

    It stays when nodes, values, inputs or dimensions get other names, nodes another valid order, weights other values
    or none (`strip`), and tensors another place (initializer, Constant, external file, input); with the producer,
    descriptions, metadata that decide no role, dead nodes, and attributes that repeat their default. It changes with
    operators, attributes, wiring, the order of operands, shapes and element types of tensors, roles, and the inputs and
    outputs of the model: a fixed batch is not a free one. It is taken before BatchNormalization is restored, so a
    folded export is another graph; so is a quantised one, although its arithmetic is read as float.

    Which values count: training must not change a fingerprint, so whole numbers, booleans and strings that are not
    learned do (axes, shapes, indices; up to 65,536 entries), and so do single floats (an epsilon, 0.5, the bounds of
    a Clip) and the scales of a Resize. Longer float tables do not: position tables and class tokens begin as zeros and
    end as anything, and no rule recognises all of them. Nor do the scales and zero points of a quantisation, which are
    calibrated. Which uses share a tensor counts where two of its axes are longer than 1, so tied matrices are not
    untied ones; exporters store equal vectors once, and before training all scales are 1.

    Limits: a single learned number that no rule recognises counts (give it a role by metadata). Sharing of vectors
    does not. What an exporter makes of values is not seen through: PyTorch's leaves out a bias that is all zeros, as
    that of a folded BatchNormalization is before training. Whether an input of the model is a weight is decided by
    names too (see `store_supplied`). A file that lost its BatchNormalizations is the graph of a network that never had
    any. The operator set does not count by itself, so an operator that means something else in another one (Softmax
    before 13) is told by an attribute's default at most; what it changes in the graph counts (axes that became inputs).
    Two graphs that compute the same in other words are two: Add(a, b) is not Add(b, a).

    No weight and no external file is read, but for short lists and single numbers, and one that is missing counts by
    its shape. Raises ModelError where the model cannot be read; see `load_model`.
    """
    return _canonical(load_model(model)).fingerprint


def canonical_graph(loaded: LoadedModel, *, last: bool = False) -> CanonicalGraph:
    """Return the graph that the fingerprint is taken of, with the names of nodes.

    last: whether nobody needs the shapes of `loaded` afterwards; otherwise it is not modified. `loaded` must be as
    `load_model` returns it: shapes that were made concrete are no longer what the file declares.
    """
    return _canonical(loaded if last else loaded.copy())


def _canonical(loaded: LoadedModel) -> CanonicalGraph:
    model = loaded.model
    inputs = tuple(_declared([*model_inputs(model)]))
    shapes = [value.shape for value in model.graph.outputs]
    inferred = False
    with contextlib.suppress(ModelError):  # an input of which nobody knows the rank
        set_input_shapes(model, input_specs(model, loaded.name, _SAMPLES, {}), infer=False)
        inferred = weights_have_shapes(model)
    if not inferred:
        infer_shapes(model)
    static = StaticValues.of(model)
    decisions = decide_roles(model, loaded.name, None, static)
    roles = {(use.node, use.slot): str(use.role) for use in decisions.uses if use.role is not Role.CONSTANT}
    learned = {tensor.value for tensor in learned_tensors(model, decisions, static).values()}
    walker = _Walker(roles, learned, model.opset_imports)
    results = walker.main(model.graph)
    outputs = tuple(
        f"{_type(value)}{_dims(shape, {})}" for value, shape in zip(model.graph.outputs, shapes, strict=True)
    )
    done = loaded.quantised
    quantised = f"{done.layers} integer layers, {done.activations} activations" if done != Dequantised() else ""
    return CanonicalGraph(inputs, tuple(walker.lines), outputs, results, quantised)


def _declared(values: Sequence[ir.Value]) -> Iterator[str]:
    """Yield type and declared shape of each input; dimensions of one name are one, and the name does not matter."""
    names = Counter(
        dim.value for value in values for dim in value.shape or () if not isinstance(dim, int) and dim.value
    )
    shared = {name: f"free{number}" for number, name in enumerate(n for n, times in names.items() if times > 1)}
    for value in values:
        yield f"{_type(value)}{_dims(value.shape, shared)}"


def _type(value: ir.Value) -> str:
    return str(value.dtype) if isinstance(value.type, ir.TensorType) else str(value.type)


def _dims(shape: ir.Shape | None, shared: Mapping[str, str]) -> str:
    if shape is None:
        return "[?]"
    dims = (str(dim) if isinstance(dim, int) and dim > 0 else _free(dim, shared) for dim in shape)
    return f"[{','.join(dims)}]"


def _free(dim: int | ir.SymbolicDim, shared: Mapping[str, str]) -> str:
    return "free" if isinstance(dim, int) or dim.value is None else shared.get(dim.value, "free")


class _Walker:
    """Walks a graph from its outputs, operands first and in their order, and numbers what it meets."""

    def __init__(
        self, roles: Mapping[tuple[ir.Node, int], str], learned: set[ir.Value], imports: Mapping[str, int]
    ) -> None:
        self.roles, self.learned, self.imports = roles, learned, imports
        self.lines: list[Line] = []
        self._sources: dict[ir.Value, str] = {}
        self._tables: dict[ir.Value, int] = {}
        self._stored: dict[ir.Value, Stored | None] = {}
        self._read: dict[ir.Node, list[ir.Value]] = {}
        self._seen: set[ir.Node] = set()
        self._bodies = 0

    def main(self, graph: ir.Graph) -> tuple[Operand, ...]:
        """Walk the main graph and return what its outputs are."""
        fed = (value for value in graph.inputs if value.name not in graph.initializers)
        self._sources |= {value: f"in{number}" for number, value in enumerate(fed)}
        return self._walk(graph.outputs, "", 0)

    def _walk(self, outputs: Sequence[ir.Value], place: str, body: int) -> tuple[Operand, ...]:
        stack = self._makers(outputs)
        while stack:
            node, is_ready = stack.pop()
            if is_ready:
                self._write(node, place, body)
            elif node not in self._seen:
                self._seen.add(node)
                stack.append((node, True))
                stack += self._makers(self._operands(node))
        return tuple(self._operand(value) for value in outputs)

    def _makers(self, values: Sequence[ir.Value]) -> list[tuple[ir.Node, bool]]:
        """Return the nodes that compute `values`, the last one first, as a stack takes them."""
        makers = [value.producer() for value in values if self._as_stored(value) is None]
        return [(node, False) for node in reversed(makers) if node is not None and node not in self._seen]

    def _operands(self, node: ir.Node) -> list[ir.Value]:
        """Return what a node reads: its inputs, then what its bodies take from outside."""
        if node not in self._read:
            own = [value for value in node.inputs if value is not None]
            self._read[node] = own + [value for _, body in _bodies(node) for value in self._captured(body)]
        return self._read[node]

    def _captured(self, body: ir.Graph) -> list[ir.Value]:
        found: dict[ir.Value, None] = {}
        seen: set[ir.Value] = set()
        pending = list(reversed(body.outputs))
        while pending:
            value = pending.pop()
            if value in seen or self._as_stored(value) is not None:
                continue
            seen.add(value)
            node = value.producer()
            if value.graph is not body:
                found[value] = None
            elif node is not None:
                pending += reversed(self._operands(node))
        return list(found)

    def _as_stored(self, value: ir.Value) -> Stored | None:
        if value not in self._stored:
            self._stored[value] = find_stored(value, self.learned)
        return self._stored[value]

    def _write(self, node: ir.Node, place: str, body: int) -> None:
        operator = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
        results: list[Operand] = []
        for name, inner in _bodies(node):
            self._bodies += 1
            number = self._bodies
            self._sources |= {value: f"@{number}.{slot}" for slot, value in enumerate(inner.inputs)}
            results += self._walk(inner.outputs, f"{place}{operator}.{name}/", number)
        operands = [self._operand(value, node, slot) for slot, value in enumerate(node.inputs)]
        while operands and operands[-1].what == "-":
            operands.pop()
        weight = None if len(node.inputs) < 2 or node.inputs[1] is None else self._as_stored(node.inputs[1])
        attributes = attribute_texts(node, self.imports, None if weight is None else weight.dims)
        line = len(self.lines)
        outputs = len(node.outputs) if counts_outputs(node) else 0
        self._sources |= {out: f"%{line}.{index}" if index else f"%{line}" for index, out in enumerate(node.outputs)}
        self.lines.append(
            Line(str(node.name), place, body, operator, attributes, tuple(operands), tuple(results), outputs)
        )

    def _operand(self, value: ir.Value | None, node: ir.Node | None = None, slot: int = 0) -> Operand:
        if value is None:
            return Operand("", "-", "")
        role = "" if node is None else self.roles.get((node, slot), "")
        stored = self._as_stored(value)
        if stored is None:
            return Operand(role, "", self._sources.get(value, "?"))
        operator = node.op_type if node is not None and slot > 0 else ""
        counts = stored.counts_by_value and operator not in _CALIBRATED and stored.root not in self.learned
        counts |= operator in _TELLING
        number = self._tables.setdefault(stored.root, len(self._tables)) if stored.is_table and not counts else None
        return Operand(role, stored.text(counts), "" if number is None else f"#{number}")


def _bodies(node: ir.Node) -> list[tuple[str, ir.Graph]]:
    """Return the graphs that a node holds, with the names of their attributes, in the order of these."""
    found: list[tuple[str, ir.Graph]] = []
    for name, attribute in sorted(node.attributes.items()):
        if not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPH:
            found.append((name, attribute.as_graph()))
        elif not attribute.is_ref() and attribute.type == ir.AttributeType.GRAPHS:
            found += [(name, graph) for graph in attribute.as_graphs()]
    return found
