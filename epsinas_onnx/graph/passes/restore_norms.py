"""Puts the BatchNormalizations back that an exporter folded into the layers in front of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from epsinas_onnx._util.text import NAMED, first_names
from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.analysis.folded_norms import ALL, AUTO, EPSILON, NONE, FoldedNorm, find_folded
from epsinas_onnx.graph.analysis.layers import CONVOLUTIONS, Kind, Layer
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.traversal import StaticValues

_PARAMETERS = (("scale", 1.0), ("shift", 0.0), ("mean", 0.0), ("variance", 1.0))


@dataclass(frozen=True)
class Restored:
    """What was put back. layers: names of the layers that have a BatchNormalization again. why: by layer name.

    doubts: the layers that were left alone although they may have had one, with the reason. guessed: how many have the
    default epsilon, because folding hid theirs. missed: what was asked for by name and no layer has.
    """

    layers: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()
    guessed: int = 0
    missed: str | None = None

    def notes(self) -> list[str]:
        """Return what a reader of the score should know, a sentence each."""
        notes = []
        if self.layers:
            reasons = list(dict.fromkeys(_general(why) for why in self.why))
            epsilon = f"; epsilon {EPSILON:g} assumed" if self.guessed else ""
            notes.append(f"{len(self.layers)} BatchNorm restored ({'; '.join(reasons[:NAMED])}{epsilon})")
        if self.doubts:
            names = [repr(name) for name, _ in self.doubts]
            notes.append(
                f"{len(names)} convolutions ({first_names(names)}) {self.doubts[0][1]}; nothing was restored, so if "
                "BatchNorm was folded into them, this is not the score of the architecture: use --restore-batchnorm all"
            )
        if self.missed is not None:
            notes.append(f"no layer has a name that {self.missed!r} matches, so no BatchNorm was restored")
        return notes


def restore_batch_norms(model: ir.Model, static: StaticValues, ranks: Ranks, which: str = AUTO) -> Restored:
    """Put a BatchNormalization behind each layer of `model` that one was folded into, in place.

    The layer loses its bias, and the affine operators behind it their place, because both are what the normalisation
    was folded into. Scale and shift are new parameters, mean and variance new statistics; none of them is ever read.
    `static` learns of them. which: see `find_folded`.
    """
    findings = find_folded(model, static, ranks, which)
    restored, doubts, guessed = [], [], 0
    for finding in findings:
        if finding.kind is Kind.FOLDED and _restore(finding, static, ranks):
            restored.append(finding)
            guessed += finding.epsilon is None
        elif finding.kind is Kind.DOUBT:
            doubts.append((str(finding.layer.node.name), finding.why))
    names = tuple(str(finding.layer.node.name) for finding in restored)
    matches = which in (AUTO, NONE, ALL) or any(finding.kind is Kind.FOLDED for finding in findings)
    why = tuple(finding.why for finding in restored)
    return Restored(names, why, tuple(doubts), guessed, None if matches else which)


def check_which(which: object) -> None:
    """Raise UsageError where `which` is no text."""
    if not isinstance(which, str) or not which:
        raise UsageError(f"--restore-batchnorm takes {AUTO}, {NONE}, {ALL} or a pattern, not {which!r}")


def _restore(finding: FoldedNorm, static: StaticValues, ranks: Ranks) -> bool:
    layer = finding.layer
    node, end, raw = layer.node, layer.end, layer.raw
    graph = node.graph
    order = _channels_first(layer, ranks)
    if not isinstance(graph, ir.Graph) or order is None:
        return False
    dtype = next((value.dtype for value in (raw, *node.inputs) if value and value.dtype in FLOATS), ir.DataType.FLOAT)
    parameters = []
    for what, filling in _PARAMETERS:
        parameter = _parameter(f"{node.name}.batch_norm.{what}", layer.channels, filling, dtype)
        graph.register_initializer(parameter)
        static.values.add(parameter)
        parameters.append(parameter)
    if node.op_type in CONVOLUTIONS | {"Gemm"} and len(node.inputs) > 2:
        node.resize_inputs(2)
    made = _normalised(f"{node.name}.batch_norm", raw, order, parameters, finding.epsilon)
    for new in made:
        new.outputs[0].type = ir.TensorType(dtype)
    output = made[-1].outputs[0]
    output.shape = end.shape
    graph.insert_after(layer.nodes[-1], made)
    name = end.name
    end.replace_all_uses_with(output, replace_graph_outputs=True)
    if end is raw:
        made[0].replace_input_with(0, raw)
    end.name = f"{name}.folded"
    output.name = name
    for follower in reversed(layer.tail):
        graph.remove(follower, safe=True)
    return True


def _channels_first(layer: Layer, ranks: Ranks) -> list[int] | None:
    """Return the axes of a layer's result in the order that a BatchNormalization wants, empty where they have it.

    None where there is no axis of channels behind that of the samples, or nothing tells which it is.
    """
    if layer.axis == 1:
        return []
    rank = ranks.of(layer.raw)
    if rank is None or rank < 2:
        return None
    axis = layer.axis % rank
    return [] if axis == 1 else [0, axis, *(other for other in range(1, rank) if other != axis)]


def _normalised(
    name: str, x: ir.Value, order: Sequence[int], parameters: Sequence[ir.Value], epsilon: float | None
) -> list[ir.Node]:
    """Return a BatchNormalization of `x`, between transpositions where its axes are to be put into another order."""
    attributes = [ir.AttrFloat32("epsilon", EPSILON if epsilon is None else epsilon)]
    normalise = ir.Node("", "BatchNormalization", [x, *parameters], attributes, name=name)
    if not order:
        return [normalise]
    back = [order.index(position) for position in range(len(order))]
    first = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", order)], name=f"{name}.channels_first")
    normalise.replace_input_with(0, first.outputs[0])
    last = ir.Node("", "Transpose", normalise.outputs, [ir.AttrInt64s("perm", back)], name=f"{name}.channels_last")
    first.outputs[0].name, normalise.outputs[0].name = f"{name}.first", f"{name}.normalised"
    dims = [None] * len(order) if x.shape is None else [x.shape[axis] for axis in order]
    for value in (first.outputs[0], normalise.outputs[0]):
        value.shape = ir.Shape(dims)
    return [first, normalise, last]


def _parameter(name: str, channels: int, filling: float, dtype: ir.DataType) -> ir.Value:
    def make() -> ir.TensorProtocol:
        return ir.tensor(np.full(channels, filling, dtype.numpy()), name=name)

    shape = ir.Shape([channels])
    tensor = ir.LazyTensor(make, dtype=dtype, shape=shape, name=name)
    return ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=tensor)


def _general(why: str) -> str:
    """Return a reason without the names and numbers of one layer."""
    return re.sub(r" (the name )?'[^']*'", "", why)
