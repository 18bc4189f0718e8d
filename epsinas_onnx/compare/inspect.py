"""Describes what scoring will do with a model: roles and their rules, what will be fed, and what is odd about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epsinas_onnx._util.notebook import ShownInNotebook
from epsinas_onnx._util.text import sentence
from epsinas_onnx.errors import ModelError
from epsinas_onnx.evaluate_lumped.call import Unsupported
from epsinas_onnx.evaluate_lumped.evaluator import Evaluator
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.graph.analysis.shapes import Shapes, fixed_batch_size
from epsinas_onnx.graph.load import STANDARD_DOMAINS, ModelSource, load_model
from epsinas_onnx.graph.passes.rebatch import fixed_batch
from epsinas_onnx.inputs.generate import fed_kind
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.lump.counting import count_multiply_adds, minibatch_multiply_adds
from epsinas_onnx.lump.lower import lump
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.lump.value import Parts
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.options import score_options
from epsinas_onnx.scoring.plan import ModelPlan, plan
from epsinas_onnx.scoring.warnings import custom_operators, unjudged_notes

_LOOKED_AT = 8
"""Samples in which equal positions are looked for: what is drawn at random does not agree in all of them."""


@dataclass(frozen=True)
class InspectedUse:
    """One use of a stored tensor.

    Attributes:
        place: `NODE:SLOT`, as `--role` takes it.
        operator: of the node.
        tensor: the name of the operand.
        shape: of the operand as the node sees it; None where unknown.
        role: `weight`, `bias`, `statistics`, `embedding` or `constant`.
        rule: what decided, in words.
    """

    place: str
    operator: str
    tensor: str
    shape: tuple[int, ...] | None
    role: str
    rule: str


@dataclass(frozen=True)
class InspectedInput:
    """One input, and what will be fed.

    Attributes:
        name: in the file.
        dtype: the element type, as ONNX calls it.
        declared: for each axis its size, the name of a free dimension, or None.
        shape: what will be fed.
        batch_axis: which axis holds the samples; None where none does.
        kind: what the values will be, such as `grey` or `tokens`.
        tokens: entries of the smallest table that the values index; None where they index none of known size.
    """

    name: str
    dtype: str
    declared: tuple[int | str | None, ...]
    shape: tuple[int, ...]
    batch_axis: int | None
    kind: str
    tokens: int | None


@dataclass(frozen=True)
class LumpedValue:
    """What lumping makes of one value.

    Attributes:
        node: the name of the node that computes it.
        operator: of that node.
        value: its name.
        shape: of the whole value; None where it is known at run time only.
        classes: how many classes of equal indices each axis has, as many numbers as `shape`; None where that is.
    """

    node: str
    operator: str
    value: str
    shape: tuple[int, ...] | None
    classes: tuple[int, ...] | None


@dataclass(frozen=True)
class Lumping:
    """What lumping does with a model, for one constant.

    Attributes:
        values: outputs of the nodes of the main graph, in order.
        multiply_adds: those for the whole minibatch, in the model and in the lumped graph.
        without_rule: nodes that run as they are, as `NODE (OPERATOR)`.
        formed: nodes that exact arithmetic leaves to ONNX Runtime, as `NODE (OPERATOR)`; they have the range
            of float32.
        cut_off: why the output cannot depend on the input, None where it can.
    """

    values: tuple[LumpedValue, ...]
    multiply_adds: tuple[int, int]
    without_rule: tuple[str, ...]
    formed: tuple[str, ...]
    cut_off: str | None


@dataclass(frozen=True)
class Inspection(ShownInNotebook):
    """What `score` will do with a model; nothing was run.

    Attributes:
        model: where it came from: a path, or `<bytes>`, `<ModelProto>`, `<ir.Model>`.
        producer: which program wrote the file, and its version.
        opset: version of the operator set by domain; the standard domain is `ai.onnx`.
        nodes: nodes of the graph as loaded, functions inlined, bodies included.
        parameters: elements of all learned tensors (weights, biases and embeddings, tied ones counted once).
        inputs: in the order of the file, without those that hold weights.
        outputs: names, in the order of the file.
        uses: every float tensor that is stored or computed from stored ones, where it meets the signal, in graph order.
        warnings: what is odd about the file, a sentence each.
        lumping: what merging identical channels does; None where the graph cannot be lowered.
        multiply_adds: for one sample, None where not all of them could be counted; a warning says which.
    """

    model: str
    producer: str
    opset: Mapping[str, int]
    nodes: int
    parameters: int
    inputs: tuple[InspectedInput, ...]
    outputs: tuple[str, ...]
    uses: tuple[InspectedUse, ...]
    warnings: tuple[str, ...]
    lumping: Lumping | None
    multiply_adds: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        record = dataclasses.asdict(self)
        record["opset"] = dict(self.opset)
        return record


def inspect(
    model: ModelSource,
    *,
    shapes: Shapes | None = None,
    roles: Mapping[str, str] | None = None,
    batch: int = 256,
    inputs: str = "auto",
    restore_batchnorm: str = "auto",
) -> Inspection:
    """Decide roles and inputs of `model` as `score` would, and return them with the reasons.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        roles: glob over `NODE:SLOT`, node or tensor name to `weight`, `bias`, `statistics`, `embedding` or `constant`.
        batch: samples in the minibatch that would be fed.
        inputs: the kind that would be fed: `auto`, `grey`, `normal`, `uniform` or `tokens`.
        restore_batchnorm: behind which layers a folded BatchNormalization is put back: `auto`, `none`, `all`, or a glob
            over node names.

    Returns:
        An Inspection. Custom operators are a warning in it, where `score` refuses them.

    Raises:
        ModelError: the file cannot be read.
        UsageError: a role does not exist, or `restore_batchnorm` is wrong.

    Examples:
        >>> found = inspect("models/lstm.onnx")
        >>> for use in found.uses[:3]:
        ...     print(use.place, use.role)
        embedding:0 embedding
        lstm0:1 weight
        lstm0:2 weight
    """
    options = score_options(shapes=shapes, roles=roles, restore_batchnorm=restore_batchnorm)
    loaded = load_model(model, options.named_inputs)
    producer = f"{loaded.model.producer_name or 'unknown'} {loaded.model.producer_version or ''}".strip()
    opset = {domain or "ai.onnx": version for domain, version in loaded.model.opset_imports.items()}
    custom = custom_operators(loaded.model, STANDARD_DOMAINS)
    planned = plan(loaded, batch, options.whole_graph(), infer=True)
    specs, decisions = planned.specs, planned.decisions
    described = []
    for spec in specs:
        asks = planned.demands[spec.name]
        fed = fed_kind(spec, inputs, asks)
        described.append(
            InspectedInput(spec.name, str(spec.dtype), spec.declared, spec.shape, spec.batch_axis, fed, asks.tokens)
        )
    uses = tuple(
        InspectedUse(use.place, use.node.op_type, str(use.value.name), use.shape, str(use.role), sentence(use.rule))
        for use in decisions.uses
    )
    warnings = [f"custom operator {key} ({count} times): ONNX Runtime cannot run it" for key, count in custom.items()]
    if fixed_batch(specs):
        warnings.append(
            "the file fixes the batch to 1: scoring re-batches it, or runs it sample by sample if that fails"
        )
    if held := fixed_batch_size(specs):
        warnings.append(f"the file fixes the batch to {held}, so that is how many samples are run")
    if not decisions.with_role(Role.WEIGHT):
        warnings.append("no weights were found")
    warnings += [*loaded.notes(), *planned.restored.notes(), *unjudged_notes(decisions)]
    single = plan(loaded, 1, options.whole_graph(), infer=True, last=True)
    counted = count_multiply_adds(single.model, single.name, single.specs, single.decisions)
    warnings += counted.notes()
    warnings += [f"the role pattern {pattern!r} matches nothing" for pattern in decisions.unused_patterns]
    return Inspection(
        loaded.name, producer, opset, loaded.nodes, decisions.parameters(), tuple(described), planned.outputs, uses,
        tuple(map(sentence, warnings)), None if custom else _lumping(planned, inputs), counted.known,
    )  # fmt: skip


def _lumping(planned: ModelPlan, inputs: str) -> Lumping | None:
    try:
        parts = _fed_parts(planned, inputs)
        lowered = lump(planned.model, planned.decisions, planned.specs, planned.name, Target(), parts=parts)
    except (Unlumpable, ModelError):  # scoring will use the plain graph, or say what is wrong with this one
        return None
    values = []
    for node in planned.model.graph:
        for output in (output for output in node.outputs if output in lowered.values):
            found = lowered.values[output]
            whole, classes = (None, None) if found.parts is None else (found.shape, found.counts)
            values.append(LumpedValue(str(node.name), node.op_type, str(output.name), whole, classes))
    without = tuple(f"{node.name} ({node.op_type})" for node in lowered.without_rule)
    cut_off = None if lowered.cut_off is None else sentence(lowered.cut_off.why)
    before, after = minibatch_multiply_adds(planned.model, lowered), lowered.multiply_adds()
    return Lumping(tuple(values), (before.total, after.total), without, _formed(planned, parts), cut_off)


def _formed(planned: ModelPlan, parts: Mapping[str, Parts]) -> tuple[str, ...]:
    """Return the nodes for which our evaluator has no rule."""
    lowered = lump(planned.model, planned.decisions, planned.specs, planned.name, Target.evaluated(), parts=parts)
    try:
        left = Evaluator(lowered, lowered.outputs, "exact").without_rule
    except Unsupported:
        return ("all nodes",)
    return tuple(dict.fromkeys(f"{node.source} ({node.op_type})" for node in left))


def _fed_parts(planned: ModelPlan, inputs: str) -> dict[str, Parts]:
    """Return which positions of a minibatch would be equal, found in a few samples of it."""
    minibatch = Minibatch(inputs, 0, planned.name)
    specs = [spec if spec.batch_axis is None else spec.with_batch(_LOOKED_AT) for spec in planned.specs]
    axes = {spec.name: spec.batch_axis for spec in specs if spec.batch_axis is not None}
    fixed = minibatch.fixed(specs, planned.demands)
    drawn = minibatch.drawn(specs, planned.demands)
    return Feeds(lambda: minibatch.feeds(specs, planned.demands), axes, fixed, drawn).parts(planned.specs)
