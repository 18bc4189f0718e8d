"""Whole models through the evaluator, and the plain graph of the same model in float64."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from epsinas_onnx.evaluate_lumped.evaluator import Arithmetic, Constant, Evaluator, variation
from epsinas_onnx.evaluate_lumped.scaled import Scaled
from epsinas_onnx.evaluate_lumped.value import Value
from epsinas_onnx.graph.load import ModelSource, load_model
from epsinas_onnx.lump.lower import LumpedModel, lump
from epsinas_onnx.lump.step import ShapesMissing, Target
from epsinas_onnx.scoring.options import GraphOptions
from epsinas_onnx.scoring.plan import ModelPlan, plain_graph, plan

Array = npt.NDArray[Any]


class Prepared(NamedTuple):
    """A model that is planned and lowered for the evaluator."""

    planned: ModelPlan
    lowered: LumpedModel

    @property
    def axes(self) -> dict[str, int]:
        """Return where the samples lie in each input."""
        return {spec.name: spec.batch_axis for spec in self.planned.specs if spec.batch_axis is not None}

    def evaluator(self, arithmetic: Arithmetic) -> Evaluator:
        """Return the lowered graph, ready to run."""
        return Evaluator(self.lowered, self.lowered.outputs, arithmetic)

    def exactly(self, constant: float | Constant, feeds: Mapping[str, Array]) -> Value:
        """Return the only output with base and deviation, each class as often as it counts."""
        own = constant if isinstance(constant, Constant) else Constant(constant)
        (value,) = self.evaluator("exact").values(own, feeds, self.axes).values()
        return value

    def entries(self, value: Value) -> Scaled:
        """Return the entries of the only output as the metric takes them, up to what they have in common."""
        return variation([value], lambda _, array: self.split(array))

    def split(self, array: Array) -> Array:
        """Return the only output as the metric takes it, flattened."""
        (value,) = self.lowered.outputs.values()
        return self.lowered.split(value, array)[0].reshape(-1)


def prepared(source: ModelSource, batch: int) -> Prepared:
    """Plan and lower a model for the evaluator."""
    planned = plan(load_model(source), batch, GraphOptions())
    target = Target(1, False, True, planned.options.norm_stats, whole_norms=True)
    for known in (planned.inferred, True):
        try:
            planned = planned.with_shapes() if known else planned
            return Prepared(
                planned, lump(planned.model, planned.decisions, planned.specs, planned.name, target, 0, known)
            )
        except ShapesMissing:
            continue
    raise AssertionError


def plain_double(planned: ModelPlan, constant: float, feeds: Mapping[str, Array]) -> Array:
    """Return the only output of the plain graph, flattened, as onnx's reference evaluator has it in float64."""
    graph = plain_graph(planned)
    proto = ir.to_proto(graph.model)
    for tensor in proto.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = onnx.numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))
    _spell_out_hard_swish(proto.graph)
    for node in proto.graph.node:
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.t.data_type == onnx.TensorProto.FLOAT:
                array = onnx.numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(onnx.numpy_helper.from_array(array))
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    wide = {name: a.astype(np.float64) if a.dtype == np.float32 else a for name, a in feeds.items()}
    wide["epsinas_weight"] = np.asarray(constant, np.float64)
    del proto.graph.value_info[:]
    with np.errstate(all="ignore"):
        (made, *_) = ReferenceEvaluator(proto).run(list(graph.outputs), wide)
    return np.asarray(made).reshape(-1)


def _spell_out_hard_swish(graph: onnx.GraphProto) -> None:
    """Write HardSwish as a product, because onnx has its sixth in float32."""
    nodes = list(graph.node)
    del graph.node[:]
    for name, value in (("sixth", 1 / 6), ("half", 0.5), ("none", 0.0), ("one", 1.0)):
        graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float64), f"swish/{name}"))
    for node in nodes:
        if node.op_type != "HardSwish":
            graph.node.append(node)
            continue
        x, y = node.input[0], node.output[0]
        for op_type, inputs, output in (
            ("Mul", [x, "swish/sixth"], f"{y}/share"),
            ("Add", [f"{y}/share", "swish/half"], f"{y}/moved"),
            ("Clip", [f"{y}/moved", "swish/none", "swish/one"], f"{y}/gate"),
            ("Mul", [x, f"{y}/gate"], y),
        ):
            graph.node.append(onnx.helper.make_node(op_type, inputs, [output]))
