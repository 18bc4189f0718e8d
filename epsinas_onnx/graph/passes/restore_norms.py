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
from epsinas_onnx.graph.analysis.layers import CONVOLUTIONS, Kind
from epsinas_onnx.graph.analysis.shapes import rank_of
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.traversal import StaticValues

_PARAMETERS = (("scale", 1.0), ("shift", 0.0), ("mean", 0.0), ("variance", 1.0))


@dataclass(frozen=True)
class Restored:
    """What was put back. layers: names of the layers that have a BatchNormalization again. why: by layer name.

    doubts: the layers that were left alone although they may have had one, with the reason. guessed: how many have the
    default epsilon, because folding hid theirs.
    """

    layers: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    doubts: tuple[tuple[str, str], ...] = ()
    guessed: int = 0

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
        return notes


def restore_batch_norms(model: ir.Model, static: StaticValues, which: str = AUTO) -> Restored:
    """Put a BatchNormalization behind each layer of `model` that one was folded into, in place.

    The layer loses its bias, and the affine operators behind it their place, because both are what the normalisation
    was folded into. Scale and shift are new parameters, mean and variance new statistics; none of them is ever read.
    `static` learns of them. which: see `find_folded`.
    """
    findings = find_folded(model, static, which)
    restored, doubts, guessed = [], [], 0
    for finding in findings:
        if finding.kind is Kind.FOLDED and _restore(finding, static):
            restored.append(finding)
            guessed += finding.epsilon is None
        elif finding.kind is Kind.DOUBT:
            doubts.append((str(finding.layer.node.name), finding.why))
    names = tuple(str(finding.layer.node.name) for finding in restored)
    return Restored(names, tuple(finding.why for finding in restored), tuple(doubts), guessed)


def check_which(which: object) -> None:
    """Raise UsageError where `which` is no text."""
    if not isinstance(which, str) or not which:
        raise UsageError(f"--restore-batchnorm takes {AUTO}, {NONE}, {ALL} or a pattern, not {which!r}")


def _restore(finding: FoldedNorm, static: StaticValues) -> bool:
    layer = finding.layer
    node, end, raw = layer.node, layer.end, layer.raw
    graph = node.graph
    if not isinstance(graph, ir.Graph) or (node.op_type == "MatMul" and rank_of(node.inputs[0]) != 2):
        return False  # a normalisation counts channels along axis 1
    dtype = next((value.dtype for value in (raw, *node.inputs) if value and value.dtype in FLOATS), ir.DataType.FLOAT)
    parameters = []
    for what, filling in _PARAMETERS:
        parameter = _parameter(f"{node.name}.batch_norm.{what}", layer.channels, filling, dtype)
        graph.register_initializer(parameter)
        static.values.add(parameter)
        parameters.append(parameter)
    if node.op_type in CONVOLUTIONS | {"Gemm"} and len(node.inputs) > 2:
        node.resize_inputs(2)
    made = _normalised(f"{node.name}.batch_norm", raw, layer.axis, parameters, rank_of(raw), finding.epsilon)
    output = made[-1].outputs[0]
    output.shape, output.type = end.shape, ir.TensorType(dtype)
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


def _normalised(
    name: str, x: ir.Value, axis: int, parameters: Sequence[ir.Value], rank: int | None, epsilon: float | None
) -> list[ir.Node]:
    """Return a BatchNormalization of `x` over all axes but `axis`, between transpositions where that is not 1."""
    attributes = [ir.AttrFloat32("epsilon", EPSILON if epsilon is None else epsilon)]
    normalise = ir.Node("", "BatchNormalization", [x, *parameters], attributes, name=name)
    if axis == 1 or rank is None:
        return [normalise]
    order = [0, axis, *(other for other in range(1, rank) if other != axis)]
    back = [order.index(position) for position in range(rank)]
    first = ir.Node("", "Transpose", [x], [ir.AttrInt64s("perm", order)], name=f"{name}.channels_first")
    normalise.replace_input_with(0, first.outputs[0])
    last = ir.Node("", "Transpose", normalise.outputs, [ir.AttrInt64s("perm", back)], name=f"{name}.channels_last")
    first.outputs[0].name, normalise.outputs[0].name = f"{name}.first", f"{name}.normalised"
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
