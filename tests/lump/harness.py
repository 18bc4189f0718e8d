"""Compares a rule with its operator: representatives in, expanded result out, against ONNX Runtime."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from hypothesis import settings
from hypothesis import strategies as st

from epsinas_onnx.graph.analysis.roles import Role, RoleDecisions, Use
from epsinas_onnx.lump.context import Context
from epsinas_onnx.lump.graph import LoweredGraph
from epsinas_onnx.lump.partition import Partition
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.lump.walk import Walker
from epsinas_onnx.lump.write import write_model

Array = npt.NDArray[Any]
Reference: TypeAlias = Callable[[Mapping[str, Array]], Sequence[Array]]

EXAMPLES = int(os.environ.get("EPSINAS_EXAMPLES", "1"))
"""How many times as many examples as usual are drawn; docs/releasing.md asks for 10."""


def examples(count: int) -> settings:
    """Return how a rule is tested: on `count` examples, others in every run."""
    return settings(max_examples=count * EXAMPLES, deadline=None)


@dataclass
class Operand:
    """One operand of a node under test.

    array: representatives, `[constants, *counts]` where `varied`, else `[*counts]`; the whole value where `known`.
    parts: the partitions. known: whether the rule may look at the numbers. weighted: whether a weight touched it.
    factor: what the representatives must still be multiplied by. layout: the tensor's own shape, where it is another.
    """

    array: Array
    parts: tuple[Partition, ...]
    varied: bool = False
    known: bool = False
    weighted: bool = False
    factor: float = 1.0
    layout: tuple[int, ...] | None = None

    @property
    def laid_out(self) -> Array:
        """Return the representatives as they lie in memory."""
        return self.array if self.layout is None else self.array.reshape(self.layout)

    def whole(self, constant: int) -> Array:
        """Return the whole value for one constant."""
        if self.known:
            return self.array
        array = self.array[constant] if self.varied else self.array
        return np.asarray(expanded(array, self.parts) * self.array.dtype.type(self.factor), self.array.dtype)


def expanded(array: Array, parts: Sequence[Partition]) -> Array:
    """Return every entry of a value from its representatives `[*counts]`."""
    return array[np.ix_(*(part.labels for part in parts))] if parts else array


@st.composite
def partitions(draw: st.DrawFn, size: int) -> Partition:
    """Draw a partition of `size` indices: one class, all apart, or anything between."""
    kind = draw(st.sampled_from(["one", "discrete", "any", "any"]))
    if kind == "one":
        return Partition.one(size)
    if kind == "discrete":
        return Partition.discrete(size)
    return Partition.of(draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))


@st.composite
def operands(
    draw: st.DrawFn,
    shape: Sequence[int],
    *,
    constants: int = 1,
    parts: Sequence[Partition] | None = None,
    low: float = -2.0,
    high: float = 2.0,
    dtype: npt.DTypeLike = np.float32,
    factors: bool = False,
    layouts: bool = False,
) -> Operand:
    """Draw an operand of `shape`: random partitions (unless given), numbers in [low, high], varied or not.

    factors: whether it may have a pending factor. layouts: whether its tensor may have a shape of its own.
    """
    chosen = tuple(parts) if parts is not None else tuple(draw(partitions(size)) for size in shape)
    varied = constants > 1 and draw(st.booleans())
    counts = tuple(part.count for part in chosen)
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    array = rng.uniform(low, high, (constants, *counts) if varied else counts).astype(dtype)
    factor = draw(st.sampled_from([1.0, 3.0, 0.5, -2.0])) if factors else 1.0
    layout = draw(layouts_of(array.shape)) if layouts else None
    weighted = varied or (constants == 1 and draw(st.booleans()))
    return Operand(array, chosen, varied, weighted=weighted, factor=factor, layout=layout)


@st.composite
def layouts_of(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Draw a shape with the same entries: as it is, flat, or with its first axes merged and a 1 beside them."""
    kept = draw(st.integers(0, len(shape)))
    merged = math.prod(shape[:kept])
    return draw(st.sampled_from([shape, (math.prod(shape),), (1, merged, *shape[kept:]), (merged, 1, *shape[kept:])]))


def known(array: npt.ArrayLike, dtype: npt.DTypeLike = np.int64) -> Operand:
    """Return an operand whose numbers the rule may look at."""
    full = np.asarray(array, dtype)
    return Operand(full, tuple(Partition.discrete(size) for size in full.shape), known=True)


def weight(shape: Sequence[int], constants: Sequence[float]) -> Operand:
    """Return an operand that is full of the constant."""
    parts = tuple(Partition.one(size) for size in shape)
    values = np.asarray(constants, np.float32).reshape(-1, *(1,) * len(shape))
    varied = len(constants) > 1
    return Operand(values if varied else values[0], parts, varied, weighted=True)


@dataclass
class Lowered:
    """What a rule made of a node: the values, what they are per constant, and which nodes had no rule.

    guards: what must be finite for the values to be what a proof says they are.
    """

    values: list[Lumped]
    arrays: list[list[Array]]
    without_rule: list[ir.Node]
    graph: LoweredGraph
    guards: list[Array]


def lower(
    node: onnx.NodeProto,
    given: Mapping[str, Operand],
    opset: int = 18,
    constants: int = 1,
    blocked: bool = True,
    domains: Mapping[str, int] | None = None,
    target: Target | None = None,
) -> Lowered:
    """Apply the rule of a node and run what it made; the arrays are whole values, `[output][constant]`.

    target: what the graph is lowered for; where it is given, `constants` and `blocked` are its own, and the mean and
    variance of a BatchNormalization have their usual role, so that its `norm_stats` decides what becomes of them.
    """
    model = _model(node, given, opset, domains)
    graph = LoweredGraph(model.opset_imports)
    decisions = RoleDecisions(() if target is None else tuple(_statistics(model.graph)), ())
    target = target or Target(constants, blocked, node_cost=0)
    constants = target.constants
    context = Context(graph, target)
    walker = Walker(context, decisions, "test", 0)
    feeds: dict[str, Array] = {}
    for value in model.graph.inputs:
        operand = given[str(value.name)]
        dtype = ir.DataType.from_numpy(operand.array.dtype)
        if operand.known:
            walker.values[value] = context.known(operand.array, dtype)
            continue
        tensor = graph.input(str(value.name), operand.laid_out.shape, dtype)
        feeds[tensor.name] = operand.laid_out
        walker.values[value] = Lumped(
            operand.parts, dtype, tensor, operand.factor, operand.weighted, operand.varied, depends=True
        )
    inner = next(iter(model.graph))
    walker.walk(model.graph, inner.outputs)
    outputs = [context.settle(walker.values[value]) for value in inner.outputs if value in walker.values]
    tensors = [context.canonical(value) for value in (*outputs, *context.guards)]
    names = [f"result{index}" for index in range(len(tensors))]
    proto = write_model(graph, dict(zip(names, tensors, strict=True)), np.ones(constants, np.float32))
    feeds["epsinas_weight"] = np.ones(constants, np.float32)
    arrays = run(proto, feeds)
    whole = []
    for made, tensor, array in zip(outputs, tensors, arrays, strict=False):
        assert tensor.shape is None or tensor.shape == array.shape, f"{tensor} came out as {array.shape}"
        assert not made.zero or not array.any(), f"{tensor} is not zero"
        rows = list(array) if made.varied else [array] * constants
        whole.append([row if made.parts is None else expanded(row, made.parts) for row in rows])
    return Lowered(outputs, whole, walker.without_rule, graph, arrays[len(outputs) :])


def _statistics(graph: ir.Graph) -> Iterator[Use]:
    for node in graph:
        if node.op_type == "BatchNormalization" and not node.attributes.get_int("training_mode", 0):
            for slot in (3, 4):
                value = node.inputs[slot]
                assert value is not None
                yield Use(node, slot, value, None, Role.STATISTICS, "given", ())


def check(
    node: onnx.NodeProto,
    given: Mapping[str, Operand],
    *,
    opset: int = 18,
    constants: int = 1,
    blocked: bool = True,
    rtol: float = 1e-4,
    atol: float = 1e-4,
    ruled: bool = True,
    domains: Mapping[str, int] | None = None,
    target: Target | None = None,
    reference: Reference | None = None,
) -> Lowered:
    """Assert that the lumped result, expanded, is what ONNX Runtime computes from the expanded operands.

    ruled: whether the rule must have applied. Tolerances: float32 sums of up to some hundred terms of size 1, in
    another order than the operator's. target: as for `lower`. reference: computes the outputs from the whole operands
    by name, in place of ONNX Runtime.
    """
    lowered = lower(node, given, opset, constants, blocked, domains, target)
    if ruled:
        assert not lowered.without_rule, "the rule did not apply"
    assert all(np.isfinite(guard).all() for guard in lowered.guards)
    for constant in range(constants if target is None else target.constants):
        whole = {name: operand.whole(constant) for name, operand in given.items()}
        wanted = plain(node, whole, opset, domains) if reference is None else reference(whole)
        for index, array in enumerate(wanted[: len(lowered.arrays)]):
            got = lowered.arrays[index][constant]
            assert got.shape == array.shape, f"{got.shape} instead of {array.shape}"
            assert got.dtype == array.dtype
            np.testing.assert_allclose(got, array, rtol=rtol, atol=atol)
    return lowered


def plain(
    node: onnx.NodeProto, feeds: Mapping[str, Array], opset: int = 18, domains: Mapping[str, int] | None = None
) -> list[Array]:
    """Run one node as it is."""
    operands = {name: Operand(array, tuple(map(Partition.discrete, array.shape))) for name, array in feeds.items()}
    return run(ir.to_proto(_model(node, operands, opset, domains)), feeds)


def run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model on ONNX Runtime without optimisations beyond the basic ones."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    return [np.asarray(array) for array in session.run(None, {k: v for k, v in feeds.items() if k in names})]


def _model(
    node: onnx.NodeProto, given: Mapping[str, Operand], opset: int, domains: Mapping[str, int] | None
) -> ir.Model:
    """Return a model of one node with shapes inferred from whole operands; known ones are stored for the inference."""
    whole = {name: operand.whole(0) for name, operand in given.items()}
    inputs = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in whole.items()
    ]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    stored = [onnx.numpy_helper.from_array(whole[name], name) for name, operand in given.items() if operand.known]
    graph = onnx.helper.make_graph([node], "test", inputs, outputs, stored)
    imports = [onnx.helper.make_opsetid("", opset)]
    imports += [onnx.helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=8 if opset <= 20 else 10)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    del inferred.graph.initializer[:]
    return ir.from_proto(inferred)
