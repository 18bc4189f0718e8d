"""Appends the signs of pre-activations to a prepared graph, sample by sample, for the scores that count them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.proxies.activations import Activation
from epsinas_onnx.proxies.prepared import Prepared


class Units(NamedTuple):
    """The units of one pre-activation.

    axis: along which samples lie. size: how many units a sample has. times: how often the pre-activation is applied.
    """

    value: ir.Value
    axis: int
    size: int
    times: int


class Signs(NamedTuple):
    """Signs of the units of one pre-activation. value: float32 `[samples, units]`, 1 where x > 0 and 0 elsewhere."""

    value: ir.Value
    units: Units


def units(prepared: Prepared, activations: Sequence[Activation]) -> list[Units]:
    """Return the pre-activations of a model, each once, in graph order.

    activations: of the drawn graph, or of the plan that it is drawn for.

    Raises UnsupportedError where there are none, and with the node where a shape is unknown or nothing tells along
    which axis samples lie.
    """
    times: dict[ir.Value, int] = {}
    nodes: dict[ir.Value, ir.Node] = {}
    for activation in activations:
        times[activation.value] = times.get(activation.value, 0) + 1
        nodes.setdefault(activation.value, activation.node)
    if not times:
        raise UnsupportedError(f"{prepared.name}: there is no ReLU, nor any of its kin, whose sign could be looked at")
    found = []
    for value, count in times.items():
        shape, axis = prepared.shape(value), prepared.sample_axis(value)
        if shape is None or axis is None:
            node = nodes[value]
            what = "has no known shape" if shape is None else f"has no axis of samples in its shape {list(shape)}"
            raise UnsupportedError(
                f"{prepared.name}: node {node.name!r} ({node.op_type}): what it is applied to {what}"
            )
        found.append(Units(value, axis, math.prod(shape) // prepared.batch, count))
    return found


def signs(prepared: Prepared) -> Sequence[Signs]:
    """Append the signs of every pre-activation to the graph, once however often they are asked for; see `units`."""
    return prepared.once("signs", _append_signs)


def _append_signs(prepared: Prepared) -> Sequence[Signs]:
    emitter, found = prepared.emitter, []
    zero = emitter.constant(np.zeros((), np.float32))
    for one in units(prepared, prepared.activations):
        value = one.value
        if value.dtype != ir.DataType.FLOAT:
            value = emitter.op("Cast", [value], to=int(ir.DataType.FLOAT))
        positive = emitter.op("Cast", [emitter.op("Greater", [value, zero])], to=int(ir.DataType.FLOAT))
        if one.axis:
            rank = len(prepared.shape(one.value) or ())
            order = [one.axis, *(axis for axis in range(rank) if axis != one.axis)]
            positive = emitter.op("Transpose", [positive], perm=order)
        found.append(Signs(emitter.reshape(positive, [prepared.batch, -1]), one))
    prepared.append()
    return found
