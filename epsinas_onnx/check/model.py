"""One model as the rules see it: every part is read or computed once, when a rule first asks for it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import onnx

from epsinas_onnx.check.baseline import Baseline, Entry, key_of
from epsinas_onnx.check.settings import ScoreSettings
from epsinas_onnx.graph.analysis.folded_norms import AUTO
from epsinas_onnx.graph.fingerprint import canonical_graph
from epsinas_onnx.graph.load import LoadedModel, load_model, load_proto
from epsinas_onnx.graph.passes.restore_norms import Restored
from epsinas_onnx.graph.passes.upgrade_opset import declared_opset
from epsinas_onnx.graph.tensor_data import bytes_with_data, data_files
from epsinas_onnx.lump.counting import MultiplyAdds, count_multiply_adds
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.plan import ModelPlan, plan
from epsinas_onnx.scoring.result import Score
from epsinas_onnx.scoring.single import score_or_error


class Expected:
    """What a baseline says of one model. name: the baseline's file. entry: None where it does not know the model."""

    def __init__(self, path: Path, baseline: Baseline, model: str) -> None:
        self.name, self.written_by = path.name, baseline.written_by
        self.entry: Entry | None = baseline.models.get(key_of(model, path))
        self.settings = baseline.settings if self.entry is None else baseline.settings_of(self.entry)


class ModelUnderCheck:
    """A model file. expected: None where there is no baseline.

    Whatever reads the file raises ModelError where it cannot.
    """

    def __init__(self, path: str, settings: ScoreSettings, provider: str, expected: Expected | None = None) -> None:
        self.path, self.settings, self.expected = path, settings, expected
        self.options = settings.options(provider)

    @cached_property
    def proto(self) -> onnx.ModelProto:
        """The file as it is stored."""
        return load_proto(self.path, self.path)

    @cached_property
    def loaded(self) -> LoadedModel:
        """The model as scoring reads it, before anything is decided; not to be modified."""
        return load_model(self.path, self.options.named_inputs, proto=self.proto)

    @cached_property
    def restored(self) -> Restored:
        """Which batch normalisations were folded away, whatever the settings say of restoring them."""
        if self.options.restore_batchnorm == AUTO:
            return self.planned.restored
        settings = dataclasses.replace(self.options, restore_batchnorm=AUTO)
        return plan(self.loaded, 1, settings.whole_graph(), infer=True).restored

    @cached_property
    def planned(self) -> ModelPlan:
        """The model for one sample: its inputs and its roles, with all shapes inferred."""
        return plan(self.loaded, 1, self.options.whole_graph(), infer=True)

    @cached_property
    def opset(self) -> int | None:
        """The operator set of the standard domain."""
        return declared_opset(self.proto)

    @cached_property
    def parameters(self) -> int:
        """How many elements all learned tensors hold."""
        return self.planned.decisions.parameters()

    @cached_property
    def counted(self) -> MultiplyAdds:
        """Multiply-adds of convolutions, matrix products, attention and recurrences, for one sample."""
        planned = self.planned
        return count_multiply_adds(planned.model, planned.name, planned.specs, planned.decisions)

    @property
    def multiply_adds(self) -> int | None:
        """The same, None where not all of them could be counted."""
        return self.counted.known

    @cached_property
    def score(self) -> Score:
        """The score, whose status is `error` where there can be none."""
        return score_or_error(self.path, self.options, lambda: self.loaded)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint of the weightless graph."""
        return canonical_graph(self.loaded).fingerprint

    @cached_property
    def data_files(self) -> Mapping[str, int | None]:
        """The external data files and their bytes, None for one that is missing."""
        return data_files(self.proto.graph, Path(self.path).parent)

    @cached_property
    def size(self) -> int:
        """Bytes of the file and of its external data."""
        return bytes_with_data(Path(self.path), self.data_files)

    def facts(self, *, with_score: bool = False) -> Facts:
        """Return what is known of the model; the score only where a rule asked for it, or `with_score` does."""
        found = {}
        for name in ("fingerprint", "size", "parameters", "multiply_adds", "opset"):
            try:
                found[name] = getattr(self, name)
            except Exception:  # the rules that need it say what is wrong; a fact must not end the check
                found[name] = None
        if with_score or "score" in self.__dict__:
            return Facts(**found, status=self.score.status, score=self.score.score)
        return Facts(**found)
