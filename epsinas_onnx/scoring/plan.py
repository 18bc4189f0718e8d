"""Plans how a model is scored for one minibatch size: shapes, folded normalisations, roles, outputs, in that order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.caches import Cache, find_caches, grown_caches
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.ranks import Ranks
from epsinas_onnx.graph.analysis.roles import RoleDecisions, decide_roles
from epsinas_onnx.graph.analysis.shapes import input_specs
from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.load import LoadedModel, check_standard
from epsinas_onnx.graph.passes.constant_weights import rewrite_weights
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes, set_input_shapes, weights_have_shapes
from epsinas_onnx.graph.passes.rebatch import loosen_batch
from epsinas_onnx.graph.passes.restore_norms import Restored, restore_batch_norms
from epsinas_onnx.graph.passes.to_float32 import to_float32
from epsinas_onnx.graph.traversal import StaticValues, all_graphs
from epsinas_onnx.inputs.demands import demands
from epsinas_onnx.inputs.operands import Demand
from epsinas_onnx.scoring.options import GraphOptions


@dataclass(frozen=True)
class ModelPlan:
    """A model with concrete shapes for one minibatch size, its roles, and what is compared; no weight is replaced yet.

    model: the plan's own graph. specs: the inputs, in order. demands: by input name, what its operators ask of it.
    outputs: names that are compared, or all. skipped: the softmax at the end whose input is compared instead, None
    where there is none. inferred: whether all shapes were inferred, or only those of the weights. restored: the batch
    normalisations that were put back. caches: the inputs that hold earlier tokens.
    """

    model: ir.Model
    name: str
    decisions: RoleDecisions
    specs: tuple[InputSpec, ...]
    demands: Mapping[str, Demand]
    outputs: tuple[str, ...]
    skipped: str | None
    options: GraphOptions
    inferred: bool
    restored: Restored
    caches: Sequence[Cache]

    def copy(self) -> ModelPlan:
        """Return the same with a graph of its own, for what changes it in place."""
        model = self.model.clone()
        nodes: dict[ir.Node, ir.Node] = {}
        values: dict[ir.Value, ir.Value] = {}
        for ours, theirs in zip(all_graphs(self.model.graph), all_graphs(model.graph), strict=True):
            values.update(zip(ours.inputs, theirs.inputs, strict=True))
            values.update((value, theirs.initializers[name]) for name, value in ours.initializers.items())
            for one, other in zip(ours, theirs, strict=True):
                nodes[one] = other
                values.update(zip(one.outputs, other.outputs, strict=True))
        return dataclasses.replace(self, model=model, decisions=self.decisions.moved(nodes, values))

    def with_shapes(self) -> ModelPlan:
        """Return the same with all shapes inferred."""
        if self.inferred:
            return self
        planned = dataclasses.replace(self.copy(), inferred=True)
        infer_shapes(planned.model)
        return planned

    def with_batch(self, batch: int) -> ModelPlan:
        """Return the same for another minibatch size; not for a graph whose fixed batch was loosened."""
        specs = tuple(spec.with_batch(batch) for spec in self.specs)
        planned = self.copy()
        set_input_shapes(planned.model, specs, infer=self.inferred)
        if not self.inferred:
            weights_have_shapes(planned.model)
        return dataclasses.replace(planned, specs=specs, demands=demands(planned.model, specs, self.caches))


@dataclass(frozen=True)
class PlainGraph:
    """A graph in which nothing is merged, and whose weights are the scalar input `epsinas_weight`.

    outputs: names that are compared. statistics: names of the minibatch mean and variance of each batch
    normalisation; they are graph outputs too.
    """

    model: ir.Model
    name: str
    specs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    statistics: tuple[tuple[str, str], ...]


def plan(
    loaded: LoadedModel, batch: int, options: GraphOptions, *, infer: bool | None = None, last: bool = False
) -> ModelPlan:
    """Decide shapes, roles and outputs of `loaded` for `batch` samples; `loaded` is not modified, unless `last`.

    infer: whether all shapes are inferred; None for only where deciding, or what is compared, takes it. last: whether
    nobody asks anything of `loaded` any more, so that its graph is taken and not copied: a tenth of the time of a small
    network.

    Raises ModelError and its kinds for whatever keeps the graph from being scored.
    """
    model, name = loaded.model if last else loaded.model.clone(), loaded.name
    caches = find_caches(model)
    specs = _concretise(model, name, batch, options)
    inferred = bool(infer or options.outputs) or not weights_have_shapes(model)
    if inferred:
        infer_shapes(model)
    static, ranks = StaticValues.of(model), Ranks(None if inferred else lambda: infer_shapes(model))
    restored = restore_batch_norms(model, static, ranks, options.restore)
    decisions = decide_roles(model, name, options.roles, static)
    skipped = None if options.outputs is None else select_outputs(model, options.outputs, name)
    asked = demands(model, specs, caches)
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return ModelPlan(model, name, decisions, specs, asked, outputs, skipped, options, ranks.inferred, restored, caches)


def plain_graph(planned: ModelPlan) -> PlainGraph:
    """Return the graph of a plan with its weights replaced, and nothing merged."""
    planned = planned.with_shapes() if not planned.inferred else planned.copy()
    model, options = planned.model, planned.options
    compared = len(model.graph.outputs)
    model.graph.outputs.extend(grown_caches(model))
    rewritten = rewrite_weights(
        model, planned.decisions, planned.name, norm_stats=options.norm_stats, seed=options.seed
    )
    outputs = tuple(str(value.name) for value in model.graph.outputs[:compared])
    statistics = tuple((str(mean.name), str(variance.name)) for mean, variance in rewritten.statistics)
    model.graph.outputs.extend([value for pair in rewritten.statistics for value in pair])
    return PlainGraph(model, planned.name, planned.specs, outputs, statistics)


def _concretise(model: ir.Model, name: str, batch: int, options: GraphOptions) -> tuple[InputSpec, ...]:
    """Make the input shapes concrete in place; shapes that follow from them are not inferred yet."""
    if not options.allow_custom:
        check_standard(model, name)
    if not options.native_types:
        to_float32(model)
    specs = input_specs(model, name, batch, options.shapes, options.attempt)
    if options.loosen:
        set_input_shapes(model, [spec.with_batch(1) for spec in specs])
        loosen_batch(model, specs, batch)
    set_input_shapes(model, specs, infer=False)
    return tuple(specs)


def select_outputs(model: ir.Model, wanted: Sequence[str], name: str) -> str | None:
    """Leave only the outputs that are compared: those named, else the first float output.

    A softmax at the end of an output that nobody named is skipped: all classes are identical under constant weights,
    so every probability is one over their number, whatever the network; its name is returned. Any value of the main
    graph can be named. Raises ModelError when a name is unknown or holds no floats, or when
    the model has no float output.
    """
    graph = model.graph
    if not wanted:
        floats = [value for value in graph.outputs if _is_float_tensor(value)]
        if not floats:
            kinds = ", ".join(f"{value.name!r} ({value.type})" for value in graph.outputs) or "none"
            raise ModelError(f"{name}: the model has no float output (outputs: {kinds}){_suggestion(model)}")
        softmax = _softmax_behind(floats[0])
        graph.outputs[:] = [floats[0] if softmax is None else _input(softmax)]
        return None if softmax is None else str(softmax.name)
    values = {str(output.name): output for node in graph for output in node.outputs if output.name}
    chosen = []
    for key in wanted:
        if key not in values:
            have = ", ".join(str(value.name) for value in graph.outputs)
            raise ModelError(f"{name}: there is no value {key!r} in the main graph; the outputs are {have}")
        if not _is_float_tensor(values[key]):
            raise ModelError(f"{name}: value {key!r} holds {values[key].type}, and only floats can be compared")
        chosen.append(values[key])
    graph.outputs[:] = chosen
    return None


def _softmax_behind(value: ir.Value) -> ir.Node | None:
    node = value.producer()
    while node is not None and node.op_type in ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze"):
        node = None if node.inputs[0] is None else node.inputs[0].producer()
    if node is None or node.op_type not in ("Softmax", "LogSoftmax") or not _is_float_tensor(node.inputs[0]):
        return None
    return None if _input(node).is_graph_input() else node  # a model that is nothing else


def _input(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def _is_float_tensor(value: ir.Value | None) -> bool:
    return (
        value is not None and value.dtype in FLOATS and not isinstance(value.type, (ir.SequenceType, ir.OptionalType))
    )


def _suggestion(model: ir.Model) -> str:
    floats = [output for node in model.graph for output in node.outputs if _is_float_tensor(output) and output.name]
    return f"; name a float value inside it with --output-name, for instance {floats[-1].name!r}" if floats else ""
