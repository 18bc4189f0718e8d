"""Walks a user's graph node by node: finds operands and their roles, applies rules, and runs what has none as it is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.memory import available_bytes
from epsinas_onnx.errors import ShapeError
from epsinas_onnx.graph.analysis.loop_growth import grown
from epsinas_onnx.graph.analysis.roles import Role, RoleDecisions, Use
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.constant_tensor import constant_tensor, node_proto
from epsinas_onnx.graph.evaluate import evaluate
from epsinas_onnx.graph.external_data import kept_tensor, read_constant
from epsinas_onnx.graph.output_sizes import Known, outcome, refuse_if_large, refuse_if_larger
from epsinas_onnx.graph.passes.constant_weights import embedding_seeds, no_shape
from epsinas_onnx.graph.traversal import RANDOM, node_bodies
from epsinas_onnx.lump.all_rules import find_rule
from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.partition import Partition, of_array
from epsinas_onnx.lump.registry import Outcome
from epsinas_onnx.lump.repeats import Repeats
from epsinas_onnx.lump.step import SeparateRuns, ShapesMissing, Step
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.lump.value import Dims, Lumped, Tensor
from epsinas_onnx.multiply_adds.call import Call, Operand
from epsinas_onnx.multiply_adds.outputs import contributed_shape

_KNOWN_SIZE = 4096
"""Values up to this many entries are computed while the graph is built, where nothing but stored numbers go in."""
_COMPARED_SIZE = 2**20
"""Stored tensors up to this many entries are searched for equal slices."""

_NORMALISES = frozenset({"BatchNormalization", "InstanceNormalization", "GroupNormalization"})
_KEEPS_SPREAD = frozenset(
    {"Conv", "Relu", "Clip", "LeakyRelu", "Add", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Identity",
     "Dropout", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Gemm", "Slice", "Split", "Pad"}
)  # fmt: skip


class Walker:
    """Lowers graphs into a context. values: what became of each of the user's values so far.

    without_rule: the user's nodes that run as they are. inner: what became of values in bodies, when last seen.
    """

    def __init__(self, context: Context, decisions: RoleDecisions, name: str, seed: int, inferred: bool = True) -> None:
        self.context = context
        context.bodies = self
        self._repeats = Repeats(context)
        self.name = name
        self._inferred = inferred
        self.values: dict[ir.Value, Lumped] = {}
        self.inner: dict[ir.Value, Lumped] = {}
        self.without_rule: list[ir.Node] = []
        self._uses = {(use.node, use.slot): use for use in decisions.uses if self._is_replaced(use)}
        self._seeds = embedding_seeds(decisions, seed)
        self._tables: dict[tuple[int, Dims], Lumped] = {}
        self._order = 0
        self._spread: set[ir.Value] = set()
        self._unlumped: dict[ir.Value, Known] = {}

    def _is_replaced(self, use: Use) -> bool:
        if use.role is Role.STATISTICS:
            return self.context.target.norm_stats != "stored"
        return use.role is not Role.CONSTANT

    def walk(self, graph: ir.Graph, outputs: Iterable[ir.Value]) -> None:
        """Lower the nodes of `graph` that `outputs` need, in order."""
        needed = self._needed(graph, outputs)
        for node in graph:
            if node in needed:
                self._order += 1
                self._node(Step(node, self._order))

    def inlined(self, graph: ir.Graph) -> list[Lumped]:
        """Lower a body without inputs into the graph at hand; return its outputs."""
        return self.lowered(graph, {})

    def lowered(self, graph: ir.Graph, bound: Mapping[ir.Value, Lumped]) -> list[Lumped]:
        """Lower a body with its inputs bound, and forget its values; return its outputs."""
        self.values.update(bound)
        self.walk(graph, graph.outputs)
        outputs = [self.value(value) for value in graph.outputs]
        for value in (*bound, *(output for node in graph for output in node.outputs)):
            found = self.values.pop(value, None)
            if found is not None:
                self.inner[value] = found
        return outputs

    def shape(self, value: ir.Value) -> Dims | None:
        """Return the shape that a value is declared with, where that is concrete."""
        return known_shape(value)

    def at(self, step: Step) -> None:
        """Go on with the node that holds the bodies."""
        self.context.graph.source = str(step.node.name)

    def _needed(self, graph: ir.Graph, outputs: Iterable[ir.Value]) -> set[ir.Node]:
        needed: set[ir.Node] = set()
        pending = list(outputs)
        while pending:
            producer = pending.pop().producer()
            if producer is None or producer in needed or producer.graph is not graph:
                continue
            needed.add(producer)
            pending += self._reads(producer)
        return needed

    def _reads(self, node: ir.Node) -> Iterable[ir.Value]:
        for slot, value in enumerate(node.inputs):
            if value is not None and (node, slot) not in self._uses:
                yield value
        for body in node_bodies(node):
            yield from body.outputs
            for inner in body:
                yield from self._reads(inner)

    def value(self, value: ir.Value) -> Lumped:
        """Return what became of a value; a stored tensor is read when it is asked for."""
        found = self.values.get(value)
        if found is None:
            found = self.values[value] = self._stored(kept_tensor(value, self.name))
        return found

    def _stored(self, tensor: ir.TensorProtocol) -> Lumped:
        dtype = tensor.dtype
        if dtype == ir.DataType.STRING:
            raise Unlumpable("strings have no classes")
        array = tensor.numpy()
        if array.size <= _KNOWN_SIZE:
            return self.context.known(array, dtype)
        parts = of_array(array) if array.size <= _COMPARED_SIZE else tuple(map(Partition.discrete, array.shape))
        if any(part.count != part.size for part in parts):
            array = array[np.ix_(*(part.representatives for part in parts))]
        return Lumped(parts, dtype, self.context.constant(array), zero=array.size <= _COMPARED_SIZE and not array.any())

    def _operand(self, node: ir.Node, slot: int, value: ir.Value | None) -> Lumped | None:
        if value is None:
            return None
        use = self._uses.get((node, slot))
        if use is None:
            return self.value(value)
        if use.role is Role.STATISTICS:
            return None
        if use.shape is None:
            raise ShapeError(no_shape(use, self.name))
        dtype = use.value.dtype or ir.DataType.FLOAT
        if use.role is Role.WEIGHT:
            return self.context.weight(use.shape, dtype)
        if use.role is Role.BIAS:
            return self.context.zeros(use.shape, dtype)
        parts = tuple(Partition.discrete(size) for size in use.shape)
        return Lumped(parts, dtype, table=self._seeds[use])

    def _node(self, step: Step) -> None:
        node = step.node
        context = self.context
        context.graph.source = str(node.name)
        operands = [self._operand(node, slot, value) for slot, value in enumerate(node.inputs)]
        context.doubtful = not self._keeps_spread(node, operands)
        outcome: Outcome = self._folded(step, operands)
        if outcome is None and all(operand is None or operand.parts is not None for operand in operands):
            found = find_rule(node.domain, node.op_type)
            if found is not None:
                taken = operands if found.scaled else [o if o is None else context.settle(o) for o in operands]
                try:
                    if found.repeats:
                        outcome = self._repeats.outcome(found.function, step, taken)
                    else:
                        outcome = found.function(context, step, taken)
                except (ArithmeticError, LookupError, TypeError, ValueError):
                    outcome = None  # operands that contradict each other: ONNX Runtime says what is wrong with them
        if outcome is None:
            if node_bodies(node):
                raise Unlumpable(f"node {node.name!r} ({node.op_type}) has a body and no rule applies")
            self.without_rule.append(node)
            outcome = self.as_it_is(step, operands)
        results = [outcome] if isinstance(outcome, Lumped) else outcome
        for value, result in zip(node.outputs, results, strict=False):
            if result is not None:
                self.values[value] = result
        self._refuse_if_large(node, operands, results)

    def _refuse_if_large(
        self, node: ir.Node, operands: Sequence[Lumped | None], results: Sequence[Lumped | None]
    ) -> None:
        """Raise OutOfMemory where more is made of constants alone than is computed, or a loop outgrows the memory.

        What has no known shape is measured all the same. A value of which few entries stand for all is small as long
        as there is a rule for what reads it.
        """
        fixed = not any(operand is not None and (operand.depends or operand.weighted) for operand in operands)
        if not fixed and node.op_type != "Loop":
            return
        pairs = [(v, result) for v, result in zip(node.outputs, results, strict=False) if result is not None]
        unknown = any(result.parts is None for _, result in pairs)
        loops = unknown and node.op_type == "Loop" and node.domain == ""
        if not fixed and not loops:
            return
        imports = self.context.graph.imports
        whole = [
            None if o is None or v is None else self._whole(v, o) for v, o in zip(node.inputs, operands, strict=True)
        ]
        if unknown:
            made = grown(node, whole, self._around, imports) if loops else outcome(node_proto(node), whole, imports)
            self._unlumped.update(zip(node.outputs, made, strict=False))
        else:
            made = [Known(o.dtype, o.shape, None, 0 if o.tensor is None else o.tensor.elements) for _, o in pairs]
        if not fixed:
            refuse_if_larger(node, made, available_bytes(), self.name)
            return
        refuse_if_large(node, whole, made, self.name)
        if self.without_rule[-1:] == [node]:
            # Operands of which few entries stand for all were stretched for it.
            stretched = [
                w for w, o in zip(whole, operands, strict=True) if w is not None and o is not None and _is_small(o)
            ]
            refuse_if_large(node, [], stretched, self.name)

    def _around(self, value: ir.Value) -> Known | None:
        found = self.values.get(value)
        return None if found is None else self._whole(value, found)

    def _whole(self, value: ir.Value, lumped: Lumped) -> Known:
        if lumped.parts is None:
            return self._unlumped.get(value, Known(lumped.dtype, None))
        return Known(lumped.dtype, lumped.shape, lumped.known, math.prod(lumped.shape))

    def _keeps_spread(self, node: ir.Node, operands: Sequence[Lumped | None]) -> bool:
        """Whether what a node takes varies about as much as it is large, because a normalisation saw to it.

        Sums with positive weights, poolings and rectifiers behind a batch normalisation keep that; behind anything
        else (the input, a sigmoid, a difference) a normalisation may be enlarging rounding alone.
        """
        keeps = all(
            value in self._spread
            for value, operand in zip(node.inputs, operands, strict=True)
            if value is not None and operand is not None and operand.depends
        )
        if node.op_type in _NORMALISES or (keeps and node.op_type in _KEEPS_SPREAD):
            self._spread.update(node.outputs)
        return keeps

    def _folded(self, step: Step, operands: Sequence[Lumped | None]) -> list[Lumped] | None:
        """Return the outputs of a node of known operands, computed now; None where it has others."""
        node = step.node
        if node.op_type == "Constant" and node.domain == "":
            return [self._constant(node)]
        if node.op_type in RANDOM or node_bodies(node):
            return None
        if node.op_type in ("Shape", "Size"):
            return self._measured(step, operands[0])
        if not operands or not all(operand is None or operand.known is not None for operand in operands):
            return None
        shapes = [step.out_shape(index) for index in range(len(node.outputs))]
        if any(shape is not None and math.prod(shape) > _KNOWN_SIZE for shape in shapes):
            return None
        arrays = [None if operand is None else operand.known for operand in operands]
        results = evaluate(node, arrays, self.context.graph.imports, _KNOWN_SIZE)
        if results is None or any(not isinstance(array, np.ndarray | np.generic) for array in results):
            return None
        folded = []
        for index, array in enumerate(map(np.asarray, results)):
            dtype = step.out_dtype(index) or ir.DataType.from_numpy(array.dtype)
            folded.append(self.context.known(array.astype(dtype.numpy(), copy=False), dtype))
        return folded

    def _constant(self, node: ir.Node) -> Lumped:
        tensor = constant_tensor(node.outputs[0])
        if tensor is None:
            raise Unlumpable(f"node {node.name!r} is a Constant of an unknown kind")
        return self._stored(read_constant(tensor, node.outputs[0].name, self.name))

    def _measured(self, step: Step, operand: Lumped | None) -> list[Lumped] | None:
        if operand is None or operand.parts is None:
            return None
        shape = operand.shape
        if step.node.op_type == "Size":
            return [self.context.known(np.asarray(np.prod(shape, dtype=np.int64)))]
        start, end = step.integer("start", 0), step.node.attributes.get("end")
        return [self.context.known(np.asarray(shape[start : None if end is None else int(end.value)], np.int64))]

    def _call(self, node: ir.Node, operands: Sequence[Lumped | None]) -> Call:
        shapes = [o if o is None else Operand(None if o.parts is None else o.shape) for o in operands]
        attributes = {name: attribute.value for name, attribute in node.attributes.items() if not attribute.is_ref()}
        return Call(str(node.name), node.op_type, node.domain, shapes, [], attributes)

    def as_it_is(self, step: Step, operands: Sequence[Lumped | None]) -> list[Lumped]:
        """Run an operator as it is, on expanded operands, once for each constant where they vary."""
        if not self._inferred:
            raise ShapesMissing
        node, context = step.node, self.context
        first = next((operand.dtype for operand in operands if operand is not None), ir.DataType.FLOAT)
        shapes = [step.out_shape(index) for index in range(len(node.outputs))]
        if shapes and shapes[0] is None:
            shapes[0] = contributed_shape(self._call(node, operands))
        outputs = [(shape, step.out_dtype(index) or first) for index, shape in enumerate(shapes)]

        def make(tensors: list[Tensor | None]) -> Sequence[Tensor]:
            return context.graph.ops(
                node.op_type, tensors, outputs, node.domain, step.attributes(), node.op_type not in RANDOM
            )

        results = []
        for tensor, varied in context.each(operands, make, context.expand):
            shape = None if tensor.shape is None else tensor.shape[1 if varied else 0 :]
            parts = None if shape is None else tuple(Partition.discrete(size) for size in shape)
            made = context.result(tensor, parts, operands)
            if made.varied and not varied:
                raise SeparateRuns
            results.append(made)
        return results


def _is_small(value: Lumped) -> bool:
    """Whether fewer entries than a value has stand for it."""
    return value.parts is not None and math.prod(value.counts) < math.prod(value.shape)
