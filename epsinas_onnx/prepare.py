"""Takes a loaded model to a rewritten graph for one minibatch size: outputs, shapes, roles, weights, in that order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.folded import AUTO
from epsinas_onnx.graph.load import LoadedModel, check_standard
from epsinas_onnx.graph.precision import FLOATS, to_float32
from epsinas_onnx.graph.ranks import Ranks
from epsinas_onnx.graph.rebatch import loosen_batch
from epsinas_onnx.graph.restore import Restored, restore_batch_norms
from epsinas_onnx.graph.rewrite import NormStats, rewrite_weights
from epsinas_onnx.graph.roles import RoleDecisions, decide_roles
from epsinas_onnx.graph.shapes import (
    InputSpec,
    Shapes,
    infer_shapes,
    input_specs,
    model_inputs,
    set_input_shapes,
    weights_have_shapes,
)
from epsinas_onnx.graph.static import StaticValues
from epsinas_onnx.inputs.vocabulary import token_bound


@dataclass(frozen=True)
class GraphOptions:
    """What decides the rewritten graph, the minibatch size aside.

    attempt: which default size to take for dimensions that nobody named. loosen: whether a batch fixed to 1 is
    loosened. native_types: whether the graph keeps its own float types instead of float32. restore: behind which
    layers a BatchNormalization is put back.
    """

    shapes: Shapes = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    norm_stats: NormStats = "batch"
    seed: int = 0
    attempt: int = 0
    loosen: bool = False
    native_types: bool = False
    restore: str = AUTO


@dataclass(frozen=True)
class Decided:
    """A model with concrete shapes for one minibatch size, its roles, and what is compared; nothing is rewritten yet.

    specs: the inputs, in order. bounds: by input name, how many tokens there are. outputs: names that are compared.
    skipped: the softmax at the end whose input is compared instead, None where there is none.
    inferred: whether all shapes were inferred, or only those of the weights. restored: the batch normalisations that
    were put back.
    """

    model: ir.Model
    name: str
    decisions: RoleDecisions
    specs: tuple[InputSpec, ...]
    bounds: Mapping[str, int | None]
    outputs: tuple[str, ...]
    skipped: str | None
    options: GraphOptions
    inferred: bool
    restored: Restored

    def with_shapes(self) -> Decided:
        """Return the same with all shapes inferred, in place."""
        if not self.inferred:
            infer_shapes(self.model)
        return dataclasses.replace(self, inferred=True)

    def with_batch(self, batch: int) -> Decided:
        """Return the same for another minibatch size, in place; not for a graph whose fixed batch was loosened."""
        specs = tuple(spec.with_batch(batch) for spec in self.specs)
        set_input_shapes(self.model, specs, infer=self.inferred)
        if not self.inferred:
            weights_have_shapes(self.model)
        return dataclasses.replace(self, specs=specs)


@dataclass(frozen=True)
class Prepared:
    """The plain graph: a model whose weights are the scalar input `epsinas_weight`.

    outputs: names that are compared. statistics: names of the minibatch mean and variance of each batch
    normalisation; they are graph outputs too.
    """

    model: ir.Model
    name: str
    specs: tuple[InputSpec, ...]
    outputs: tuple[str, ...]
    statistics: tuple[tuple[str, str], ...]


def decide_all(loaded: LoadedModel, batch: int, options: GraphOptions) -> Decided:
    """Decide shapes, roles and outputs of `loaded` for `batch` samples; `loaded.model` is used up.

    Raises ModelError and its kinds for whatever keeps the graph from being scored.
    """
    model, name = loaded.model, loaded.name
    specs = concretise(loaded, batch, options)
    inferred = bool(options.outputs) or not weights_have_shapes(model)
    decisions, restored, inferred = _decided(model, name, options, inferred)
    skipped = select_outputs(model, options.outputs, name)
    bounds = {str(value.name): token_bound(value) for value in model_inputs(model)}
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    return Decided(model, name, decisions, specs, bounds, outputs, skipped, options, inferred, restored)


def rewrite_plainly(decided: Decided) -> Prepared:
    """Rewrite the model of `decided`, in place, without merging anything."""
    decided = decided.with_shapes()
    model, options = decided.model, decided.options
    rewritten = rewrite_weights(
        model, decided.decisions, decided.name, norm_stats=options.norm_stats, seed=options.seed
    )
    outputs = tuple(str(value.name) for value in model.graph.outputs)
    statistics = tuple((str(mean.name), str(variance.name)) for mean, variance in rewritten.statistics)
    model.graph.outputs.extend([value for pair in rewritten.statistics for value in pair])
    return Prepared(model, decided.name, decided.specs, outputs, statistics)


def prepare(loaded: LoadedModel, batch: int, options: GraphOptions) -> Prepared:
    """Rewrite `loaded` plainly for `batch` samples; see `decide_all`."""
    return rewrite_plainly(decide_all(loaded, batch, options))


def decide(
    loaded: LoadedModel, batch: int, options: GraphOptions, allow_custom: bool = False
) -> tuple[tuple[InputSpec, ...], RoleDecisions, Restored]:
    """Make the shapes of `loaded` concrete in place, infer all others, and decide all roles; nothing is rewritten."""
    specs = concretise(loaded, batch, options, allow_custom)
    decisions, restored, _ = _decided(loaded.model, loaded.name, options, inferred=True)
    return specs, decisions, restored


def _decided(model: ir.Model, name: str, options: GraphOptions, inferred: bool) -> tuple[RoleDecisions, Restored, bool]:
    """Put batch normalisations back, decide all roles, and return both and whether all shapes are inferred by now.

    inferred: whether they are to be. Where they are not, `weights_have_shapes` must have found those of the weights.
    """
    if inferred:
        infer_shapes(model)
    static, ranks = StaticValues.of(model), Ranks(model, inferred)
    restored = restore_batch_norms(model, static, ranks, options.restore)
    return decide_roles(model, name, options.roles, static), restored, ranks.inferred


def concretise(
    loaded: LoadedModel, batch: int, options: GraphOptions, allow_custom: bool = False
) -> tuple[InputSpec, ...]:
    """Make the input shapes of `loaded` concrete in place; shapes that follow from them are not inferred yet."""
    model, name = loaded.model, loaded.name
    if not allow_custom:
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
