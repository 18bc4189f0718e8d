"""Tries a variant: shapes are inferred, ONNX's checker reads it, and ONNX Runtime runs it on a small batch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.graph.analysis.caches import find_caches
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.inputs.demands import demands
from epsinas_onnx.inputs.generate import make_input
from epsinas_onnx.inputs.operands import Demand
from epsinas_onnx.runtime.providers import runtime

Array = npt.NDArray[Any]
Outputs = Mapping[str, tuple[tuple[int, ...], str]]
"""What a network gives: shape and element type by output."""


class Refused(ValueError):
    """A variant is no network; the message says who found that, and what it said."""


class Trial:
    """Runs variants of one network on the same small batch."""

    def __init__(self, original: ir.Model, specs: Sequence[InputSpec]) -> None:
        """Run the network as it is; raises Refused where that does not work either."""
        self.feeds = _feeds(original, specs)
        self._strict = True
        proto = ir.to_proto(original)
        try:
            _infer(proto)
        except Refused:  # operators that ONNX does not know, or an inconsistency in the file: then only a run tells
            self._strict = False
        self._expected = self._run(proto)

    def check(self, variant: ir.Model) -> str:
        """Return a digest of the variant; raises Refused where it is no network, or gives other shapes."""
        proto = ir.to_proto(variant)
        if self._strict:
            _infer(proto)
        given = self._run(proto)
        for output, expected in self._expected.items():
            if given.get(output) != expected:
                raise Refused(f"output {output!r} has shape {given.get(output)}, and the original {expected}")
        return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()

    def _run(self, proto: onnx.ModelProto) -> Outputs:
        return _run(proto, self.feeds)


def does_run(model: ir.Model, specs: Sequence[InputSpec]) -> bool:
    """Whether a network runs with inputs of these shapes."""
    try:
        _run(ir.to_proto(model), _feeds(model, specs))
    except Refused:
        return False
    return True


def measured_shapes(
    model: ir.Model, specs: Sequence[InputSpec], values: Sequence[ir.Value]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes that values have in a run; nothing where the network does not run."""
    proto = ir.to_proto(model)
    given = {output.name for output in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in values if value.name not in given)
    try:
        return {name: shape for name, (shape, _) in _run(proto, _feeds(model, specs)).items()}
    except Refused:
        return {}


def _run(proto: onnx.ModelProto, feeds: Mapping[str, Array]) -> Outputs:
    ort = runtime()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        arrays = session.run(names, dict(feeds))
    except Exception as error:  # ONNX Runtime raises kinds of its own
        raise Refused(f"ONNX Runtime: {_first_line(error)}") from error
    kinds = [(tuple(np.shape(array)), str(np.asarray(array).dtype)) for array in arrays]
    return dict(zip(names, kinds, strict=True))


def _infer(proto: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(proto)
        onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:
        raise Refused(f"shape inference: {_first_line(error)}") from error


def _feeds(model: ir.Model, specs: Sequence[InputSpec]) -> dict[str, Array]:
    try:
        asked = demands(model, specs, find_caches(model))
        return {
            spec.name: make_input(spec, "auto", 0, asked.get(spec.name, Demand()), index)
            for index, spec in enumerate(specs)
        }
    except EpsinasError as error:
        raise Refused(str(error)) from error


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
