"""Scores that are counted in the graph, without running it: parameters, multiply-adds, depth and units."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import ClassVar

import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.shapes import fixed_batch_size
from epsinas_onnx.graph.traversal import needed_nodes, node_bodies, operands
from epsinas_onnx.lump.counting import count_multiply_adds, minibatch_multiply_adds
from epsinas_onnx.proxies.activations import find_activations
from epsinas_onnx.proxies.drawn import is_drawn_layer
from epsinas_onnx.proxies.prepared import Prepared
from epsinas_onnx.proxies.proxy import Array, Proxy
from epsinas_onnx.proxies.signs import units
from epsinas_onnx.scoring.plan import plan, select_outputs


class Params(Proxy):
    """How many entries all learned tensors hold: weights, biases and embeddings, one with several uses counted once.

    The number of `inspect` and of every `Score`. What it cannot say: whether the output needs them.
    """

    name: ClassVar[str] = "params"
    summary: ClassVar[str] = "number of parameters"
    source: ClassVar[str] = "a count"
    seeded: ClassVar[bool] = False
    plans_once: ClassVar[bool] = True

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Count them."""
        return float(prepared.planned.decisions.parameters())


class Macs(Proxy):
    """How many products a forward pass of one sample adds up, all outputs of the file included.

    Convolutions, matrix products, attention and recurrences count (`multiply_adds`), pooling, sums and activations do
    not; the number of `inspect`. What it cannot say: where an operator is not known it is `unsupported`.
    """

    name: ClassVar[str] = "macs"
    summary: ClassVar[str] = "multiply-adds of one sample"
    source: ClassVar[str] = "a count"
    seeded: ClassVar[bool] = False
    plans_once: ClassVar[bool] = True

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Count them."""
        options = dataclasses.replace(prepared.batching.options, outputs=None, loosen=False)
        single = plan(prepared.loaded, 1, options, infer=True, last=prepared.last)
        counted = minibatch_multiply_adds(single.model, None)
        found = counted.known
        if found is not None:
            found = counted.total // (fixed_batch_size(single.specs) or 1)
        else:
            counted = count_multiply_adds(single.model, single.name, single.specs, single.decisions)
            found = counted.known
        # Every score refuses a model without an output of floats, so this one does too.
        select_outputs(single.model, prepared.batching.options.outputs or (), prepared.name)
        if found is None:
            raise UnsupportedError(f"{prepared.name}: {counted.notes()[0]}")
        return float(found)


class Depth(Proxy):
    """How many layers lie on the longest path to the output that is scored.

    A layer is a node that sums products with a learned weight: a convolution, a matrix product, a recurrence; a
    normalisation, an activation, pooling and attention between computed values are none. A body (If, Loop, Scan) counts
    with its own longest path, once. What it cannot say: how short the shortest path is (`order` says that).
    """

    name: ClassVar[str] = "depth"
    summary: ClassVar[str] = "layers on the longest path to the output"
    source: ClassVar[str] = "a count"
    seeded: ClassVar[bool] = False
    plans_once: ClassVar[bool] = True

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Count them."""
        planned = prepared.planned
        graph = planned.model.graph
        layers = {use.node for use in planned.decisions.uses if is_drawn_layer(use)}
        return float(_levels(graph, layers).get(graph.outputs[0], 0))


class ReluUnits(Proxy):
    """How many units a sample has whose sign decides: entries of all pre-activations of ReLU and its kin.

    `activations` says which these are. A pre-activation that two nodes are applied to counts twice. What it cannot say:
    whether the units differ from each other (`swap` says that).
    """

    name: ClassVar[str] = "relu_units"
    summary: ClassVar[str] = "units of ReLU and its kin, one sample"
    source: ClassVar[str] = "a count"
    seeded: ClassVar[bool] = False

    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Count them."""
        model = prepared.shaped.model
        needed = needed_nodes(model.graph)
        found = [one for one in find_activations(model) if one.node in needed]
        return float(sum(one.size * one.times for one in units(prepared, found)))


def _levels(graph: ir.Graph, layers: Collection[ir.Node]) -> dict[ir.Value, int]:
    """Return how many layers lie on the longest path to each value of a graph, from where the graph begins."""
    levels: dict[ir.Value, int] = {}
    for node in graph:
        level = max((levels.get(value, 0) for value in operands(node)), default=0) + (node in layers)
        for body in node_bodies(node):
            inside = _levels(body, layers)
            level = max(level, level + max((inside.get(value, 0) for value in body.outputs), default=0))
        levels.update(dict.fromkeys(node.outputs, level))
    return levels
