"""Rewrites a graph so that all its weights are one scalar input, and no weight bytes are left in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

from epsinas_onnx.errors import ShapeError
from epsinas_onnx.graph.analysis.ranks import rank_of
from epsinas_onnx.graph.analysis.roles import Role, RoleDecisions, Use
from epsinas_onnx.graph.emitter import PREFIX, Emitter
from epsinas_onnx.graph.external_data import read_kept_data
from epsinas_onnx.graph.random_table import uniform_table_nodes
from epsinas_onnx.graph.traversal import all_graphs

NormStats: TypeAlias = Literal["batch", "reset", "stored"]
NORM_STATS: tuple[NormStats, ...] = ("batch", "reset", "stored")

WEIGHT_INPUT = "epsinas_weight"
"""Name of the scalar float32 input that every weight of a rewritten graph is made of."""
REPLACES = "epsinas.replaces"
"""Key in the `meta` of the last node of a decomposition: the operator that it stands for."""


@dataclass(frozen=True)
class Rewritten:
    """A graph whose only free weights are the scalar input `WEIGHT_INPUT`.

    statistics: minibatch mean and variance (one entry a channel) of each batch normalisation of the main graph.
    """

    model: ir.Model
    statistics: tuple[tuple[ir.Value, ir.Value], ...]


def rewrite_weights(
    model: ir.Model, decisions: RoleDecisions, name: str, *, norm_stats: NormStats = "batch", seed: int = 0
) -> Rewritten:
    """Make every weight of `model` the scalar input `epsinas_weight`, in place, and drop what nobody uses any more.

    weight uses read a tensor of the right shape full of the scalar; bias uses lose their operand, or read zeros where
    the operator needs one; embeddings read a table drawn from U(0, 1) with `seed` by a formula in the graph, so that
    no bytes are stored and every runtime draws the same; BatchNormalization in inference form takes minibatch
    statistics (`batch`), mean 0 and variance 1 (`reset`), or its own (`stored`).

    Raises ShapeError when a weight has no known shape, and ModelError when a kept constant's data file is missing.
    """
    emitter = Emitter(model.opset_imports.get("", 1))
    scalar = ir.Value(name=WEIGHT_INPUT, shape=ir.Shape([]), type=ir.TensorType(ir.DataType.FLOAT))
    fills = _Fills(emitter, scalar, embedding_seeds(decisions, seed), name)
    statistics = replace_learned(model, decisions, name, fills, norm_stats)
    first = next(iter(model.graph), None)
    if fills.nodes and first is not None:
        model.graph.insert_before(first, fills.nodes)
    model.graph.inputs.append(scalar)
    drop_unused(model, name)
    alive = set(model.graph)
    return Rewritten(model, tuple(pair for pair in statistics if pair[1].producer() in alive))


class Fills(Protocol):
    """What the learned operands of a graph become."""

    @property
    def emitter(self) -> Emitter:
        """Return what makes the nodes that are put in front of a node."""

    def of_role(self, use: Use) -> ir.Value:
        """Return the tensor that a weight, bias or embedding use reads from now on."""

    def scalar(self, dtype: ir.DataType) -> ir.Value:
        """Return the scalar that the scale of a batch normalisation becomes, in an element type."""


def replace_learned(
    model: ir.Model, decisions: RoleDecisions, name: str, fills: Fills, norm_stats: NormStats
) -> list[tuple[ir.Value, ir.Value]]:
    """Replace every learned operand of `model` in place, and normalisations whose statistics are not the stored ones.

    Returns the minibatch mean and variance of each batch normalisation of the main graph that was decomposed. What
    nobody reads any more is still there. Raises ShapeError as `rewrite_weights` does.
    """
    by_node: dict[ir.Node, list[Use]] = {}
    for use in decisions.uses:
        by_node.setdefault(use.node, []).append(use)
    statistics: list[tuple[ir.Value, ir.Value]] = []
    for graph in list(all_graphs(model.graph)):
        for node in list(graph):
            uses = by_node.get(node, [])
            if not uses:
                continue
            if _is_inference_batch_norm(node, uses) and norm_stats != "stored":
                pair = _decompose_batch_norm(graph, node, uses, fills, norm_stats, name)
                if pair and graph is model.graph:
                    statistics.append(pair)
            else:
                for use in uses:
                    _replace_operand(use, fills)
    return statistics


def drop_unused(model: ir.Model, name: str) -> None:
    """Drop what no output needs, in place, and read the tensors that stay constant, where they are in data files."""
    RemoveUnusedNodesPass()(model)
    ClearMetadataAndDocStringPass()(model)  # exporters write stack traces there, by the megabyte
    read_kept_data(model, name)


def embedding_seeds(decisions: RoleDecisions, seed: int) -> dict[Use, int]:
    """Return the seed of each embedding use: tables differ from each other, but not from one use to the next."""
    numbers: dict[tuple[object, ...], int] = {}
    return {
        use: seed + numbers.setdefault((use.shape, use.value.dtype, *use.stored), len(numbers))
        for use in decisions.with_role(Role.EMBEDDING)
    }


class _Fills:
    """The tensors full of c or 0 and the tables, one for each shape, at the start of the main graph."""

    def __init__(self, emitter: Emitter, scalar: ir.Value, seeds: Mapping[Use, int], name: str) -> None:
        self.nodes: list[ir.Node] = []
        self._scalar = {ir.DataType.FLOAT: scalar}
        self.emitter = emitter
        self._seeds = seeds
        self._name = name
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._zero: dict[ir.DataType, ir.Value] = {}

    def of_role(self, use: Use) -> ir.Value:
        """Return the tensor that a weight, bias or embedding use reads from now on."""
        if use.shape is None:
            raise ShapeError(no_shape(use, self._name))
        dtype = use.value.dtype or ir.DataType.FLOAT
        key: tuple[object, ...] = (use.role, use.shape, dtype)
        if use.role is Role.EMBEDDING:
            key = (*key, *use.stored)
        if key not in self._made:
            self._made[key] = self._collect(lambda: self._make(use, use.shape or (), dtype))
        return self._made[key]

    def scalar(self, dtype: ir.DataType) -> ir.Value:
        """Return the weight scalar in the element type that the graph computes in."""
        if dtype not in self._scalar:
            cast = self._collect(lambda: self.emitter.op("Cast", [self._scalar[ir.DataType.FLOAT]], to=int(dtype)))
            cast.type = ir.TensorType(dtype)
            self._scalar[dtype] = cast
        return self._scalar[dtype]

    def _make(self, use: Use, shape: Sequence[int], dtype: ir.DataType) -> ir.Value:
        if use.role is Role.WEIGHT:
            return self.emitter.fill(self.scalar(dtype), shape)
        if use.role is Role.BIAS:
            if dtype not in self._zero:
                self._zero[dtype] = self.emitter.constant(np.zeros([], dtype.numpy()))
                self._zero[dtype].type = ir.TensorType(dtype)
            return self.emitter.fill(self._zero[dtype], shape)
        table = uniform_table_nodes(self.emitter, shape, self._seeds[use])
        return table if dtype == ir.DataType.FLOAT else self.emitter.op("Cast", [table], to=int(dtype))

    def _collect(self, make: object) -> ir.Value:
        pending = self.emitter.take()
        value: ir.Value = make()  # type: ignore[operator]
        self.nodes += self.emitter.take()
        self.emitter.nodes = pending
        return value


def no_shape(use: Use, name: str) -> str:
    """Return the sentence for a weight whose shape nothing tells."""
    producer = use.value.producer()
    because = f"because it is computed at run time by node {producer.name!r}" if producer else "in the file"
    return (
        f"{name}: node {use.node.name!r} ({use.node.op_type}), input {use.slot}: the {use.role} has no known shape, "
        f"{because}; keep it as it is with --role '{use.place}=constant' to go on"
    )


# Operators that do without the operand in these slots; trailing empty inputs are cut off.
_OPTIONAL = {
    "Conv": {2},
    "ConvTranspose": {2},
    "Gemm": {2},
    "RNN": {3},
    "GRU": {3},
    "LSTM": {3, 7},
    "LayerNormalization": {2},
}


def _replace_operand(use: Use, fills: Fills) -> None:
    if use.role in (Role.CONSTANT, Role.STATISTICS):
        return
    optional = use.role is Role.BIAS and use.slot in _OPTIONAL.get(use.node.op_type, ()) and use.node.domain == ""
    # Before operator set 11 Gemm has no optional bias.
    if optional and not (use.node.op_type == "Gemm" and fills.emitter.opset < 11):
        use.node.replace_input_with(use.slot, None)
        while use.node.inputs and use.node.inputs[-1] is None:
            use.node.resize_inputs(len(use.node.inputs) - 1)
        return
    use.node.replace_input_with(use.slot, fills.of_role(use))


def _is_inference_batch_norm(node: ir.Node, uses: Sequence[Use]) -> bool:
    if node.op_type != "BatchNormalization" or node.domain != "":
        return False
    training = node.attributes.get_int("training_mode", 0) == 1
    return training or sum(use.role is Role.STATISTICS for use in uses) == 2


def _decompose_batch_norm(
    graph: ir.Graph,
    node: ir.Node,
    uses: Sequence[Use],
    fills: Fills,
    norm_stats: NormStats,
    name: str,
) -> tuple[ir.Value, ir.Value] | None:
    """Replace a BatchNormalization by elementary operators, which run on every provider.

    y = (x - mean) * (scale / sqrt(variance + epsilon)) + shift, with mean and variance over all axes but 1; the
    variance is that of the centred signal, because E[x^2] - E[x]^2 loses a small variation beside a large mean.
    """
    x, output = node.inputs[0], node.outputs[0]
    rank = rank_of(x) or rank_of(output)
    if x is None or rank is None:
        raise ShapeError(
            f"{name}: node {node.name!r} (BatchNormalization): its input has no known rank; "
            f"give the model's input shapes with --shape"
        )
    emitter, dtype = fills.emitter, x.dtype or ir.DataType.FLOAT
    by_slot = {use.slot: use for use in uses}
    scale_role, shift_role = (by_slot[slot].role if slot in by_slot else Role.CONSTANT for slot in (1, 2))
    epsilon = emitter.constant(np.asarray(node.attributes.get_float("epsilon", 1e-5), dtype.numpy()))
    axes = [0, *range(2, rank)]
    pair: tuple[ir.Value, ir.Value] | None = None
    if norm_stats == "batch":
        mean = emitter.reduce_mean(x, axes)
        centred = emitter.op("Sub", [x, mean])
        squared = emitter.op("Mul", [centred, centred])
        for value in (centred, squared):  # the estimate of memory counts what has a shape
            value.type, value.shape = ir.TensorType(dtype), x.shape
        variance = emitter.reduce_mean(squared, axes)
        pair = (mean, variance)
        for value in pair:
            value.type = ir.TensorType(dtype)
    else:
        centred = x
        variance = emitter.constant(np.ones([], dtype.numpy()))
    deviation = emitter.op("Sqrt", [emitter.op("Add", [variance, epsilon])])
    spread = [1, -1] + [1] * (rank - 2)
    scale = fills.scalar(dtype) if scale_role is Role.WEIGHT else emitter.reshape(node.inputs[1], spread)
    result = emitter.op("Mul", [centred, emitter.op("Div", [scale, deviation])])
    if shift_role is not Role.BIAS:
        shift = fills.of_role(by_slot[2]) if shift_role is Role.WEIGHT else node.inputs[2]
        result = emitter.op("Add", [result, emitter.reshape(shift, spread)])
    _give_shapes(emitter.nodes, x, dtype)
    # The last node takes over the user's names, so that messages and --output-name still find them.
    last = result.producer()
    assert last is not None
    last.name, result.name, result.shape, result.type = node.name, output.name, output.shape, output.type
    last.meta[REPLACES] = node.op_type
    graph.insert_before(node, emitter.take())
    output.name = f"{PREFIX}replaced"
    output.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    return pair


def _give_shapes(nodes: Sequence[ir.Node], x: ir.Value, dtype: ir.DataType) -> None:
    """Say of every value of a decomposition that says nothing yet that it has one entry for each channel of `x`."""
    for output in (node.outputs[0] for node in nodes):
        output.type = output.type or ir.TensorType(dtype)
        if output.shape is None and x.shape is not None:
            output.shape = ir.Shape([size if axis == 1 else 1 for axis, size in enumerate(x.shape)])
