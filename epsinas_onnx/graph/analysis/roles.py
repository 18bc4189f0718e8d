"""Decides, for every use of a stored tensor, whether it is a weight, a bias, statistics, an embedding or a constant."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx_ir as ir

from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.analysis.unjudged import Unjudged, stored_attributes, unjudged_operand
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.operators import Operand, Part, Role, find_operand, takes_table
from epsinas_onnx.graph.traversal import StaticValues, all_graphs

__all__ = [
    "FROM_MODEL", "GIVEN", "LINEAR", "METADATA_PREFIX", "NORMALISATIONS", "Role", "RoleDecisions", "Use",
    "decide_roles", "fan",
]  # fmt: skip

METADATA_PREFIX = "epsinas.role"
"""An exporter decides roles with metadata: `epsinas.role.SLOT` on a node, `epsinas.role:PATTERN` on the model."""

FROM_MODEL = "metadata of the model"
"""How the rule of a use begins that the model's own metadata decided."""

GIVEN = "given"
"""How the rule of a use begins that the caller decided."""

LINEAR = frozenset(
    {"Conv", "ConvTranspose", "ConvTransposeWithDynamicPads", "DeformConv", "Gemm", "MatMul", "Einsum", "FusedMatMul",
     "FusedMatMulActivation", "FusedConv", "FusedGemm", "NhwcConv", "NhwcFusedConv", "TransposeMatMul"}
)  # fmt: skip
NORMALISATIONS = frozenset(
    {"BatchNormalization", "InstanceNormalization", "LayerNormalization", "GroupNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "GroupNorm",
     "MeanVarianceNormalization", "LpNormalization", "EmbedLayerNormalization"}
)  # fmt: skip
_CONVOLUTIONS = frozenset({"Conv", "DeformConv", "FusedConv", "NhwcConv", "NhwcFusedConv"})
_BETWEEN = frozenset({"Identity", "Cast", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Dropout"})


@dataclass(frozen=True)
class Use:
    """One use of a static value: node, input slot, and what was decided there.

    shape: of the operand as the node sees it; None where inference does not find it. rule: what decided, in words.
    stored: the stored tensors that the operand is made of; empty for a formula.
    """

    node: ir.Node
    slot: int
    value: ir.Value
    shape: tuple[int, ...] | None
    role: Role
    rule: str
    stored: tuple[ir.Value, ...]

    @property
    def place(self) -> str:
        """Return `NODE:SLOT`, which is how `--role` names this use."""
        return f"{self.node.name}:{self.slot}"


@dataclass(frozen=True)
class RoleDecisions:
    """All uses of static float values by nodes that also see the signal, and the patterns that matched nothing.

    unjudged: stored tensors at operators that nobody judged, and that no role was given for.
    """

    uses: tuple[Use, ...]
    unused_patterns: tuple[str, ...]
    unjudged: tuple[Unjudged, ...] = ()

    def with_role(self, *roles: Role) -> list[Use]:
        """Return the uses that have one of `roles`, in graph order."""
        return [use for use in self.uses if use.role in roles]

    def moved(self, nodes: Mapping[ir.Node, ir.Node], values: Mapping[ir.Value, ir.Value]) -> RoleDecisions:
        """Return the same decisions about a copy of the graph, given what each node and value became there."""
        uses = tuple(
            dataclasses.replace(
                use, node=nodes[use.node], value=values[use.value], stored=tuple(values[one] for one in use.stored)
            )
            for use in self.uses
        )
        return dataclasses.replace(self, uses=uses)

    def longest_sum(self) -> int:
        """Return the most products that any layer adds up for one entry of its output (its fan-in), at least 1."""
        return max((_fan_in(use) for use in self.with_role(Role.WEIGHT)), default=1)

    def parameters(self) -> int:
        """Return how many elements all learned tensors hold; a tensor with several uses counts once."""
        learned = self.with_role(Role.WEIGHT, Role.BIAS, Role.EMBEDDING)
        tensors = {value: None for use in learned for value in use.stored or (use.value,)}
        return sum(_size(value) for value in tensors)


def decide_roles(
    model: ir.Model, name: str, explicit: Mapping[str, str] | None = None, static: StaticValues | None = None
) -> RoleDecisions:
    """Decide the role of every static operand of `model`, bodies of If, Loop and Scan included.

    The order of decision: `explicit` (pattern to role, the first that matches wins), metadata that an exporter wrote
    into the node or the model, the operator and its neighbourhood, and `constant` for everything else. A pattern is
    a shell glob over `NODE:SLOT`, the node's name, or the tensor's name.

    Raises UsageError for an explicit role that does not exist, and ModelError for one that the metadata names, and
    where an explicit role is put on an operand that is computed from the input at run time.
    """
    static = static or StaticValues.of(model)
    patterns = [(pattern, _role(role), f"{GIVEN}: {pattern}={role}") for pattern, role in (explicit or {}).items()]
    patterns += [
        (key.partition(":")[2], _recorded_role(role, f"{name}: metadata {key!r}"), f"{FROM_MODEL}: {key}={role}")
        for key, role in model.metadata_props.items()
        if key.startswith(f"{METADATA_PREFIX}:")
    ]
    decider = _Decider(static, patterns, name)
    uses = tuple(decider.decide(model.graph))
    unused = tuple(pattern for pattern, _, _ in patterns if pattern not in decider.matched)
    return RoleDecisions(uses, unused, tuple(decider.unjudged))


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError:
        raise UsageError(f"there is no role {text!r}; the roles are {', '.join(Role)}") from None


def _recorded_role(text: str, where: str) -> Role:
    """Return a role that the file itself gives, which is no fault of the call where there is none such."""
    try:
        return _role(text)
    except UsageError as error:
        raise ModelError(f"{where} gives a role, and {error}; mend or remove it") from None


class _Decider:
    """Walks the graphs in order and remembers which scales and sums it has already judged to be learned."""

    def __init__(self, static: StaticValues, patterns: list[tuple[str, Role, str]], name: str) -> None:
        self.static = static
        self.patterns = patterns
        self.name = name
        self.matched: set[str] = set()
        self.unjudged: list[Unjudged] = []
        self.scaled: set[ir.Node] = set()  # Mul nodes whose static operand turned out to be a weight

    def decide(self, graph: ir.Graph) -> Iterator[Use]:
        for body in all_graphs(graph):
            for node in body:
                yield from self._node(node)

    def _node(self, node: ir.Node) -> Iterator[Use]:
        may_be_told = bool(self.patterns) or bool(node.metadata_props)
        for slot, value in enumerate(node.inputs):
            if value is None or (value not in self.static and not may_be_told):
                continue
            told = self._explicit(node, str(slot), str(value.name)) if may_be_told else None
            if value not in self.static:
                if told is not None and told[0] is not Role.CONSTANT and self._means(node, slot, value):
                    self._refuse_computed(node, slot, value)
                continue
            operand = find_operand(node, slot)
            if operand is None and told is None:
                self.unjudged += unjudged_operand(node, slot, self.static.stored(value) or [])
            if value.dtype not in FLOATS and not (operand is None and told is not None):
                continue
            if told is None and not self._sees_signal(node):
                continue
            stored = self.static.stored(value)
            role, rule = told or self._by_operator(node, slot, value, operand, stored)
            if role is Role.WEIGHT and node.op_type == "Mul":
                self.scaled.add(node)
            yield Use(node, slot, value, known_shape(value), role, rule, tuple(stored or ()))
        for found in stored_attributes(node):
            told = self._explicit(node, str(found.slot))
            if told is None or told[0] is not Role.CONSTANT:  # nothing takes weights out of an attribute
                self.unjudged.append(found)

    def _sees_signal(self, node: ir.Node) -> bool:
        """Whether a use counts here: a node of static operands alone is decided where its result is used."""
        return any(output not in self.static for output in node.outputs) or _is_lookup(node) or takes_table(node)

    def _explicit(self, node: ir.Node, slot: str, tensor: str = "") -> tuple[Role, str] | None:
        for pattern, role, rule in self.patterns:
            names = (f"{node.name}:{slot}", str(node.name), tensor)
            if any(fnmatchcase(candidate, pattern) for candidate in names if candidate):
                self.matched.add(pattern)
                return role, rule
        written = node.metadata_props.get(f"{METADATA_PREFIX}.{slot}")
        if written is None:
            return None
        where = f"{self.name}: node {node.name!r} ({node.op_type}), metadata '{METADATA_PREFIX}.{slot}'"
        return _recorded_role(written, where), f"metadata of the node: {written}"

    def _means(self, node: ir.Node, slot: int, value: ir.Value) -> bool:
        """Whether a pattern names this very operand, rather than its node, whose stored operands it then means."""
        stored = any(v is not None and v in self.static and v.dtype in FLOATS for v in node.inputs)
        names = [f"{node.name}:{slot}", str(value.name)]
        return not stored or any(p in names for p, _, _ in self.patterns)

    def _refuse_computed(self, node: ir.Node, slot: int, value: ir.Value) -> None:
        producer = value.producer()
        by = f"by node {producer.name!r}" if producer is not None else "outside the model: it is an input"
        raise ModelError(
            f"{self.name}: node {node.name!r} ({node.op_type}), input {slot}: a role was given for an operand that is "
            f"computed at run time {by}; roles are for tensors that are stored in the model"
        )

    def _by_operator(
        self, node: ir.Node, slot: int, value: ir.Value, operand: Operand | None, stored: list[ir.Value] | None
    ) -> tuple[Role, str]:
        if stored is None:
            return Role.CONSTANT, "computed by a formula, not stored"
        if operand is None:
            return Role.CONSTANT, f"nobody has judged what input {slot} of {node.op_type} is"
        if operand.what is Role.STATISTICS and not all(v in self.static for v in node.inputs[3:5] if v is not None):
            return Role.CONSTANT, "the other statistics are computed in the graph"
        if isinstance(operand.what, Role):
            return operand.what, f"operator: {node.op_type} input {slot}"
        if isinstance(operand.what, Part) and (operand.of is None or node.inputs[operand.of] in self.static):
            return Role.WEIGHT, f"operator: {node.op_type} input {slot}, of a packed weight"
        if _is_lookup(node) and slot == 0 and _rank(value) == 2:
            return Role.EMBEDDING, "operator: Gather from a float table"
        neighbour = {"Mul": self._scale, "Add": self._shift, "Sub": self._shift}.get(node.op_type)
        if neighbour is not None and node.domain == "" and len(node.inputs) == 2:
            other = node.inputs[1 - slot]
            if other is not None and other not in self.static:
                return neighbour(node, slot, value, other)
        return Role.CONSTANT, f"operator: {node.op_type} has no weight in input {slot}"

    def _scale(self, node: ir.Node, slot: int, value: ir.Value, other: ir.Value) -> tuple[Role, str]:
        origin = _origin(other)
        if not _is_vector(value, node.outputs[0]) or origin is None:
            return Role.CONSTANT, "Mul by a scalar or by no vector"
        if origin.op_type in NORMALISATIONS or _normalises(origin):
            return Role.WEIGHT, f"scale behind the normalisation {origin.name!r}"
        if self._is_linear(origin):
            return Role.WEIGHT, f"scale behind {origin.op_type} {origin.name!r}"
        return Role.CONSTANT, "Mul by a vector behind no weight and no normalisation"

    def _shift(self, node: ir.Node, slot: int, value: ir.Value, other: ir.Value) -> tuple[Role, str]:
        origin = _origin(other)
        if not _is_vector(value, node.outputs[0]) or origin is None:
            return Role.CONSTANT, f"{node.op_type} of a scalar or of no vector"
        if self._is_linear(origin):
            return Role.BIAS, f"{node.op_type} behind {origin.op_type} {origin.name!r}"
        if origin in self.scaled or origin.op_type in NORMALISATIONS or self._is_scaled_mean(origin):
            return Role.BIAS, f"shift behind the scale {origin.name!r}"
        return Role.CONSTANT, f"{node.op_type} of a vector behind no weight"

    def _is_linear(self, node: ir.Node) -> bool:
        """Whether a node is a linear layer with a stored weight, or the bias Add of one."""
        if node.op_type in LINEAR:
            return any(value in self.static for value in node.inputs[:2] if value is not None)
        if node.op_type == "Add":
            behind = [value for value in node.inputs if value is not None and value not in self.static]
            origin = _origin(behind[0]) if len(behind) == 1 else None
            return origin is not None and origin.op_type in LINEAR and self._is_linear(origin)
        return False

    def _is_scaled_mean(self, node: ir.Node) -> bool:
        """Whether a node is `mean * (inverse deviation * scale)`, which TensorFlow subtracts from the shift."""
        return node.op_type == "Mul" and any(
            value is not None and (origin := _origin(value)) is not None and origin in self.scaled
            for value in node.inputs
        )


def _is_lookup(node: ir.Node) -> bool:
    """Whether a node gathers rows of a float table by a list of integers, rather than one entry of a shape."""
    if node.op_type != "Gather" or node.domain != "" or len(node.inputs) < 2:
        return False
    table, indices = node.inputs[0], node.inputs[1]
    return (
        table is not None and indices is not None
        and table.dtype in FLOATS and _rank(table) == 2 and _rank(indices) != 0
        and node.attributes.get_int("axis", 0) == 0
    )  # fmt: skip


def _origin(value: ir.Value) -> ir.Node | None:
    """Return the node that computed `value`, looking through operators that only change its layout or type."""
    node = value.producer()
    while node is not None and node.op_type in _BETWEEN and node.inputs and node.inputs[0] is not None:
        node = node.inputs[0].producer()
    return node


def _normalises(node: ir.Node) -> bool:
    """Whether a node divides by a standard deviation, or is its reciprocal: the tail of a decomposed normalisation."""
    if node.op_type == "Div":
        return len(node.inputs) == 2 and node.inputs[1] is not None and _is_deviation(node.inputs[1])
    if node.op_type == "Mul":
        return any(value is not None and _is_inverse_deviation(value) for value in node.inputs)
    return any(_is_inverse_deviation(output) for output in node.outputs)


def _is_deviation(value: ir.Value) -> bool:
    node = _origin(value)
    return node is not None and node.op_type == "Sqrt"


def _is_inverse_deviation(value: ir.Value) -> bool:
    node = _origin(value)
    if node is None or not node.inputs or node.inputs[0] is None:
        return False
    if node.op_type == "Reciprocal":
        return _is_deviation(node.inputs[0])
    return node.op_type == "Pow" and _scalar_value(node.inputs[1]) == -0.5


def _scalar_value(value: ir.Value | None) -> float | None:
    tensor = None if value is None else ir.convenience.get_const_tensor(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None


def _is_vector(value: ir.Value, output: ir.Value) -> bool:
    """Whether a stored operand has one entry per feature: one axis longer than 1, or as many as the features are."""
    shape = known_shape(value)
    if not shape:
        return False
    if sum(dim > 1 for dim in shape) == 1:
        return True
    target = known_shape(output)
    if target is None or max(shape) > 1:
        return False
    # A single entry is a vector only where the layer in front of it has a single feature; else it is a scalar.
    return len(target) >= len(shape) and all(
        dim == 1 for dim in target[1:2] if len(target) == 4
    ) and (len(target) == 4 or target[-1] == 1)  # fmt: skip


def fan(use: Use) -> tuple[int, int]:
    """Return how many inputs each output of a weight sums over, and how many outputs each input goes to, at least 1."""
    inputs = _fan_in(use)
    shape = use.shape or (1,)
    size = math.prod(shape)
    if use.node.op_type in _CONVOLUTIONS:
        return max(1, inputs), max(1, shape[0] * math.prod(shape[2:]))
    if use.node.op_type == "ConvTranspose":
        return max(1, shape[0]), max(1, math.prod(shape[1:]))
    return max(1, inputs), max(1, size // max(1, inputs) // math.prod(shape[:-2]))


def _fan_in(use: Use) -> int:
    shape = use.shape or ()
    if len(shape) < 2:
        return 1
    if use.node.op_type in _CONVOLUTIONS:
        return math.prod(shape[1:])
    if use.node.op_type in ("MatMul", "FusedMatMul", "FusedMatMulActivation", "TransposeMatMul"):
        return shape[-2] if use.slot else shape[-1]
    if use.node.op_type in ("Gemm", "FusedGemm"):
        transposed = use.node.attributes.get_int("transB" if use.slot else "transA", 0) != 0
        return shape[use.slot ^ 1 ^ transposed]
    return shape[-1]


def _rank(value: ir.Value) -> int | None:
    return None if value.shape is None else len(value.shape)


def _size(value: ir.Value) -> int:
    shape = known_shape(value)
    if shape is None and value.const_value is not None:
        shape = tuple(int(dim) for dim in value.const_value.shape)  # type: ignore[arg-type]
    size = 1
    for dim in shape or (0,):
        size *= dim
    return size
