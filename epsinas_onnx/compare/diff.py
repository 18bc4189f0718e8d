"""Compares two models: what changed in graph, roles, parameters, multiply-adds and score."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Unpack

import onnx

from epsinas_onnx._util.notebook import ShownInNotebook
from epsinas_onnx._util.text import without_subject
from epsinas_onnx.compare.align import Aligned, Alignment
from epsinas_onnx.compare.rows import AlignedNode, side_by_side
from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.shapes import model_inputs
from epsinas_onnx.graph.fingerprint import CanonicalGraph, canonical_graph
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model, load_proto
from epsinas_onnx.graph.tensor_data import bytes_with_data, data_files
from epsinas_onnx.lump.counting import count_multiply_adds
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.options import ScoreKeywords, ScoreOptions, score_options
from epsinas_onnx.scoring.plan import plan
from epsinas_onnx.scoring.result import Status, same_score
from epsinas_onnx.scoring.single import score_or_error


@dataclass(frozen=True)
class ComparedModel:
    """One of the two models.

    Attributes:
        model: where it came from: a path, or `<bytes>`, `<ModelProto>`, `<ir.Model>`.
        producer: which program wrote the file, and its version.
        opset: version of the operator set by domain; the standard domain is `ai.onnx`.
        inputs: name, element type and shape of each, as the file declares them.
        outputs: name, element type and shape of each, as the file declares them.
        nodes: how many nodes the outputs depend on.
        operators: how often each occurs in what the outputs depend on.
        roles: how often each occurs in what the outputs depend on.
        facts: what has a number; the score and its status are None where none was asked for, the size for a model in
            memory.
        notes: what a reader of the score should know, restored BatchNorm among it.
        reason: why there is no score; None where there is one, or none was asked for.
    """

    model: str
    producer: str
    opset: Mapping[str, int]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: int
    operators: Mapping[str, int]
    roles: Mapping[str, int]
    facts: Facts
    notes: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True)
class Difference(ShownInNotebook):
    """What changed from model `before` to model `after`.

    Attributes:
        before: the first model.
        after: the second model.
        alignment: what became of nodes and roles; empty where the graphs are the same.
        inputs: the ones that changed, a line each.
        nodes: all nodes of both, side by side in graph order; the record leaves them out.
    """

    before: ComparedModel
    after: ComparedModel
    alignment: Alignment
    inputs: tuple[str, ...] = ()
    nodes: tuple[AlignedNode, ...] = dataclasses.field(default=(), repr=False)

    @property
    def same_graph(self) -> bool:
        """Whether both are the same architecture: the fingerprints of their weightless graphs agree."""
        return self.before.facts.fingerprint == self.after.facts.fingerprint

    @property
    def same_score(self) -> bool:
        """Whether both have the same status and, but for rounding, the same score; true where none was asked for."""
        one, two = self.before.facts, self.after.facts
        if one.status is not two.status:
            return False
        return same_score(one.score, two.score)

    @property
    def same(self) -> bool:
        """Whether neither graph nor score changed."""
        return self.same_graph and self.same_score

    def counts(self) -> dict[str, int]:
        """Return by how much the number of each operator changed, those that it did not change for left out."""
        changes = Counter(self.after.operators)
        changes.subtract(self.before.operators)
        return {operator: count for operator, count in sorted(changes.items()) if count}

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types only."""
        record = dataclasses.asdict(dataclasses.replace(self, nodes=()))
        del record["nodes"]
        for side in ("before", "after"):
            status = record[side]["facts"]["status"]
            record[side]["facts"]["status"] = None if status is None else str(status)
        return {"same_graph": self.same_graph, "same_score": self.same_score, "operators": self.counts(), **record}


def diff(
    before: ModelSource, after: ModelSource, *, with_score: bool = True, **options: Unpack[ScoreKeywords]
) -> Difference:
    """Compare two models, without their weights.

    Two exports of one network differ in nothing, whatever was trained, and however nodes are named and ordered.

    Args:
        before: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`.
        after: the same, for the model that it is compared with.
        with_score: whether both are scored; otherwise nothing is run.
        **options: how both are scored: `weights`, `inputs`, `batch`, `shapes`, `outputs`, `roles`, `norm_stats`,
            `lump`, `providers`, `seed`, `dtype`, `threads`, `restore_batchnorm`, `arithmetic`, `scores`,
            `proxy_batch` and `device_memory`, each the keyword argument that `score` has; parameters, multiply-adds and
            notes follow them too.

    Returns:
        A Difference. A model that cannot be scored has the status `error` in it, and the reason.

    Raises:
        ModelError: one of the models cannot be read, one sentence for both where it is both.
        UsageError: an argument is wrong.

    Examples:
        >>> found = diff("models/nb201-p-s-n-n-n-s.onnx", "models/nb201-s-s-s-s-s-s.onnx", with_score=False)
        >>> found.same_graph, found.counts()
        (False, {'AveragePool': -15, 'Mul': -45})
    """
    checked = score_options(**options)
    one, two = _read(before, after, checked)
    graphs = canonical_graph(one.loaded), canonical_graph(two.loaded)
    sides = [_side(model, graph, checked, with_score) for model, graph in zip((one, two), graphs, strict=True)]
    aligned, inputs = Aligned(*graphs), tuple(_changed_inputs(graphs, sides))
    return Difference(sides[0], sides[1], aligned.alignment(), inputs, side_by_side(aligned))


@dataclass(frozen=True)
class _Read:
    """A model that was read once. size: bytes of it and its external data, None for a graph that was never written."""

    source: ModelSource
    loaded: LoadedModel
    size: int | None


def _read(before: ModelSource, after: ModelSource, options: ScoreOptions) -> tuple[_Read, _Read]:
    read, errors = [], []
    for source in (before, after):
        proto = None
        try:
            if isinstance(source, (str, os.PathLike)):
                proto = load_proto(source, os.fspath(source))
            loaded = load_model(source, options.named_inputs, proto=proto)
            read.append(_Read(source, loaded, _size(source, proto)))
        except ModelError as error:
            errors.append(error)
    if len(errors) == 2:
        raise ModelError(f"neither model can be read: {errors[0]}; {errors[1]}")
    if errors:
        raise errors[0]
    return read[0], read[1]


def _side(read: _Read, graph: CanonicalGraph, options: ScoreOptions, with_score: bool) -> ComparedModel:
    """Describe one model."""
    loaded = read.loaded
    model = loaded.model
    producer = f"{model.producer_name or 'unknown'} {model.producer_version or ''}".strip()
    opset = {domain or "ai.onnx": version for domain, version in model.opset_imports.items()}
    inputs = tuple(f"{v.name} {text}" for v, text in zip(model_inputs(model), graph.inputs, strict=True))
    outputs = tuple(f"{v.name} {text}" for v, text in zip(model.graph.outputs, graph.outputs, strict=True))
    operators = dict(Counter(line.operator for line in graph.lines))
    roles = dict(Counter(operand.role for line in graph.lines for operand in line.operands if operand.role))
    notes = loaded.notes()
    parameters = counted = None
    try:
        planned = plan(loaded, 1, options.whole_graph(), infer=True)
    except ModelError as error:
        notes.append(without_subject(str(error), loaded.name))
    else:
        notes += planned.restored.notes()
        parameters = planned.decisions.parameters()
        counted = count_multiply_adds(planned.model, planned.name, planned.specs, planned.decisions)
    scored = score_or_error(read.source, options, lambda: loaded) if with_score else None
    facts = Facts(
        fingerprint=graph.fingerprint,
        size=read.size,
        parameters=parameters,
        multiply_adds=None if counted is None else counted.known,
        opset=opset.get("ai.onnx"),
        status=None if scored is None else scored.status,
        score=None if scored is None else scored.score,
    )
    if scored is not None and scored.status is not Status.ERROR:
        notes = list(scored.warnings)
    notes += [] if counted is None else counted.notes()
    reason = None if scored is None or scored.reason is None else without_subject(scored.reason, loaded.name)
    return ComparedModel(
        loaded.name, producer, opset, inputs, outputs, len(graph.lines), operators, roles, facts, tuple(notes), reason
    )


def _size(source: ModelSource, proto: onnx.ModelProto | None) -> int | None:
    """Return the bytes of a file and its external data, or of a message; None for a graph that was never written.

    proto: what is stored in the file.
    """
    if isinstance(source, bytes):
        return len(source)
    if isinstance(source, onnx.ModelProto):
        return int(source.ByteSize())
    if proto is None or not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source)
    return bytes_with_data(path, data_files(proto.graph, path.parent))


def _changed_inputs(graphs: tuple[CanonicalGraph, CanonicalGraph], sides: list[ComparedModel]) -> Iterator[str]:
    """Yield the inputs that changed; their names do not count."""
    (ours, theirs), (before, after) = (graph.inputs for graph in graphs), sides
    for index, (one, two) in enumerate(zip_longest(ours, theirs)):
        if one != two:
            names = [side.inputs[index] if index < len(side.inputs) else "none" for side in (before, after)]
            yield f"input {index}: {names[0]} -> {names[1]}"
