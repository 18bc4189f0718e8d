"""Lowers a model whose roles are decided: the lumped graph for K constants, its verdict, and what it costs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.roles import RoleDecisions
from epsinas_onnx.graph.analysis.shapes import model_inputs
from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.cost import multiply_adds, peak_bytes
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.partition import Integers, Partition
from epsinas_onnx.lump.step import SeparateRuns, Target
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.lump.value import Cause, Lumped, Parts
from epsinas_onnx.lump.walk import Walker
from epsinas_onnx.lump.write import write_model
from epsinas_onnx.multiply_adds.total import MultiplyAdds

__all__ = ["LumpedModel", "Unlumpable", "lump"]

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class CutOff:
    """Why outputs cannot depend on the input, as the end of a sentence, and in which node, where it is one."""

    why: str
    node: ir.Node | None


@dataclass(frozen=True)
class LumpedModel:
    """A lowered graph; unless it is bound, its input `epsinas_weight` float32 `[constants]` holds the constants.

    constants: how many go through one run. values: what became of the user's values. outputs: by name, the
    values that are compared. cut_off: why these cannot depend on the input, None where they can.
    observed: mean and variance of batch normalisations that could be enlarging rounding alone, without dead ones.
    inputs: partitions of the axes of inputs that are fed by representatives.
    without_rule: nodes that run as they are, on expanded operands. inner: what became of values inside of bodies; their
    tensors cannot be seen from outside.
    """

    model: ir.Model
    graph: LoweredGraph
    context: Context
    constants: int
    values: Mapping[ir.Value, Lumped]
    outputs: Mapping[str, Lumped]
    cut_off: CutOff | None
    without_rule: tuple[ir.Node, ...]
    inner: Mapping[ir.Value, Lumped]
    inputs: Mapping[str, Parts]

    @cached_property
    def observed(self) -> list[tuple[Lumped, Lumped]]:
        """Return mean and variance of each batch normalisation that is watched: of those that reach an output."""
        live = self.graph.live_nodes([self.context.canonical(value) for value in self.outputs.values()])
        reached = {node.source for node in live}
        return [(mean, variance) for name, mean, variance in self.context.observed if name in reached]

    @property
    def bound(self) -> bool:
        """Whether the constants become part of the graph when it is written."""
        return self.context.target.bound

    def peak_bytes(self) -> tuple[int, str]:
        """Return the most bytes that live tensors of one run take together, and the name of the largest tensor."""
        return peak_bytes(self.graph, [self.context.canonical(value) for value in self.outputs.values()])

    def entries(self) -> float:
        """Return how many entries a run computes, those of unknown shape left out; infinite where there are loops."""
        live = self.graph.live_nodes([self.context.canonical(value) for value in self.outputs.values()])
        if any(node.op_type in ("Loop", "Scan") for node in live):
            return math.inf
        return sum(tensor.elements for node in live for tensor in node.outputs)

    def multiply_adds(self) -> MultiplyAdds:
        """Return the multiply-adds that the outputs need."""
        return multiply_adds(self.graph, [self.context.canonical(value) for value in self.outputs.values()])

    def exposed(self, outputs: Sequence[str]) -> dict[str, Lumped]:
        """Return the compared values and every float value that depends on the input, by name, in graph order."""
        found = {name: self.outputs[name] for name in outputs}
        for value, lumped in self.values.items():
            node = value.producer()
            if not value.name:  # an output that the file leaves out
                continue
            if lumped.depends and lumped.dtype.is_floating_point() and node is not None and self._is_outermost(node):
                found.setdefault(str(value.name), self.context.settle(lumped))
        return found

    def _is_outermost(self, node: ir.Node) -> bool:
        return node.graph is self.model.graph

    def to_proto(self, fetched: Mapping[str, Lumped], weight: Array | None) -> onnx.ModelProto:
        """Return the graph that computes the representatives of values, by name, in the shape that `split` takes.

        weight: float32 `[constants]` where the constants are to be part of the graph (`bound`), else None.
        """
        tensors = {name: self.context.canonical(value) for name, value in fetched.items()}
        return write_model(self.graph, tensors, weight)

    def fed(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return what the graph takes of a minibatch: of each input one representative a class."""
        return {name: _representatives(array, self.inputs.get(name, ())) for name, array in feeds.items()}

    def split(self, value: Lumped, array: Array) -> list[Array]:
        """Return for each constant the representatives in `array`, each as often as its class counts.

        A class counts as often as it has indices, over what all classes of the axis have in common: the metric does
        not change when every entry occurs equally often.
        """
        rows = list(array) if value.varied else [array] * self.constants
        return [_repeated(value, row) for row in rows]


def lump(
    model: ir.Model,
    decisions: RoleDecisions,
    specs: Sequence[InputSpec],
    name: str,
    target: Target,
    seed: int = 0,
    inferred: bool = True,
    fixed: Mapping[str, Array] | None = None,
    parts: Mapping[str, Parts] | None = None,
) -> LumpedModel:
    """Lower `model`, whose shapes are concrete and whose roles are decided; it is not modified.

    inferred: whether inference has found what shapes it can. fixed: inputs whose numbers may be taken for granted, by
    name, so that a branch which they decide is not lowered both ways. parts: partitions of the other inputs' axes, by
    name; where there are none, any entries may be fed. Where the constants cannot share one run, the
    result is for one constant at a time.

    Raises ShapesMissing where shapes are needed that were not inferred, Unlumpable where the graph cannot be lowered,
    ShapeError when a weight has no known shape, ModelError when a stored tensor that stays constant cannot be read.
    """
    try:
        return _lowered(model, decisions, specs, name, target, seed, inferred, fixed or {}, parts or {})
    except SeparateRuns:
        alone = dataclasses.replace(target, constants=1, bound=False)
        return _lowered(model, decisions, specs, name, alone, seed, inferred, fixed or {}, parts or {})


def _lowered(
    model: ir.Model, decisions: RoleDecisions, specs: Sequence[InputSpec], name: str, target: Target, seed: int,
    inferred: bool,
    fixed: Mapping[str, Array],
    given: Mapping[str, Parts],
) -> LumpedModel:  # fmt: skip
    graph = LoweredGraph(model.opset_imports)
    context = Context(graph, target)
    walker = Walker(context, decisions, name, seed, inferred)
    shapes = {spec.name: spec.shape for spec in specs}
    for value in model_inputs(model):
        shape = shapes[str(value.name)]
        dtype = value.dtype or ir.DataType.FLOAT
        if dtype == ir.DataType.STRING:
            raise Unlumpable("strings have no classes")
        known = fixed.get(str(value.name))
        parts = given.get(str(value.name)) if known is None else None
        if parts is None:
            parts = tuple(map(Partition.discrete, shape))
        tensor = graph.input(str(value.name), tuple(part.count for part in parts), dtype)
        walker.values[value] = (
            Lumped(parts, dtype, tensor, depends=True) if known is None else context.known(known, dtype)
        )
    wanted = list(model.graph.outputs)
    walker.walk(model.graph, wanted)
    found = {str(value.name): context.settle(walker.value(value)) for value in wanted}
    del context.bodies  # which leads back to the walker, and a circle is left to the garbage collector
    return LumpedModel(
        model,
        graph,
        context,
        target.constants,
        walker.values,
        found,
        _cut_off(found.values()),
        tuple(dict.fromkeys(walker.without_rule)),
        walker.inner,
        {key: parts for key, parts in given.items() if key not in fixed},
    )


def _cut_off(outputs: Iterable[Lumped]) -> CutOff | None:
    causes: list[Cause] = []
    for value in outputs:
        if value.depends:
            return None
        if value.cause is not None:
            causes.append(value.cause)
    if not causes:
        return CutOff("no path leads from an input to the output", None)
    cause = min(causes, key=lambda one: (one.zero, one.order))
    if cause.zero:
        return CutOff(
            f"every path from the input ends in a multiplication by 0, one of them in node {cause.node.name!r}",
            cause.node,
        )
    return CutOff(f"node {cause.node.name!r} ({cause.node.op_type}) {cause.why}", cause.node)


def _representatives(array: Array, parts: Parts) -> Array:
    for axis, part in enumerate(parts):
        if not part.is_discrete:
            first: slice | Integers = slice(0, 1) if part.is_one else part.representatives
            array = array[(slice(None),) * axis + (first,)]
    return array


def _repeated(value: Lumped, array: Array) -> Array:
    if value.parts is None:
        return array
    for axis, part in enumerate(value.parts):
        if not part.uniform:
            times = part.sizes // np.gcd.reduce(part.sizes)
            array = np.repeat(array, times, axis=axis)
    return array
