"""Writes a model whose weights are one constant, as a standard ONNX file that any runtime runs."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnx
import onnx_ir as ir

from epsinas_onnx.edit.save import write_model
from epsinas_onnx.graph.analysis.ranks import rank_of
from epsinas_onnx.graph.analysis.shapes import Shapes, model_inputs
from epsinas_onnx.graph.load import ModelSource, load_model
from epsinas_onnx.graph.passes.constant_weights import NormStats, rewrite_weights
from epsinas_onnx.lump.lower import lump as lump_model
from epsinas_onnx.lump.step import Target
from epsinas_onnx.runtime.session import bind_constant, to_proto
from epsinas_onnx.scoring.options import DEFAULT_BATCH, ElementType, check_constant, score_options
from epsinas_onnx.scoring.plan import ModelPlan, plan


def rewrite(
    model: ModelSource,
    weight: float,
    *,
    output: str | os.PathLike[str] | None = None,
    shapes: Shapes | None = None,
    roles: Mapping[str, str] | None = None,
    norm_stats: NormStats = "batch",
    seed: int = 0,
    dtype: ElementType = "float32",
    lump: bool = False,
    batch: int | None = None,
    restore_batchnorm: str = "auto",
) -> onnx.ModelProto:
    """Return `model` with every weight equal to `weight`, every bias 0, and no weight bytes.

    The inputs and outputs keep their names, and free dimensions stay free. The result is what `score --no-lump` runs
    for this constant.

    Args:
        model: a path, the file's bytes, an `onnx.ModelProto` or an `onnx_ir.Model`; it is not modified.
        weight: what every weight becomes; any finite number.
        output: also written to this path.
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        roles: glob over `NODE:SLOT`, node or tensor name to `weight`, `bias`, `statistics`, `embedding` or `constant`.
        norm_stats: what BatchNormalization in inference form uses: the minibatch's own statistics (`batch`), mean 0 and
            variance 1 (`reset`), or those in the file (`stored`).
        seed: of embedding tables.
        dtype: the arithmetic: `float32`, or `model` for the model's own float types.
        lump: whether identical channels are merged. The graph is then for one minibatch size, and its outputs hold one
            representative of each class along every axis, in the order of their first indices.
        batch: the minibatch size of a lumped graph, 256 where None; without `lump` the batch stays free.
        restore_batchnorm: behind which layers a folded BatchNormalization is put back: `auto`, `none`, `all`, or a glob
            over node names.

    Returns:
        A standard ONNX model.

    Raises:
        ModelError: the model cannot be read or rewritten.
        OutputError: the file cannot be written.
        UsageError: float32 cannot hold the weight, or another argument is wrong.

    Examples:
        >>> constant = rewrite("models/mlp.onnx", 1e-3)
        >>> [value.name for value in constant.graph.output]
        ['output']
    """
    check_constant(weight)
    options = score_options(
        shapes=shapes, roles=roles, norm_stats=norm_stats, seed=seed, dtype=dtype, restore_batchnorm=restore_batchnorm
    )
    loaded = load_model(model, options.named_inputs)
    declared = {str(value.name): value.shape for value in (*model_inputs(loaded.model), *loaded.model.graph.outputs)}
    graph = options.whole_graph(allow_custom=False)
    if lump:
        proto = _lumped(plan(loaded, batch or DEFAULT_BATCH, graph, infer=True, last=True), weight)
        write_model(proto, output)
        return proto
    planned = plan(loaded, 2, graph, infer=True, last=True)
    rewritten = rewrite_weights(planned.model, planned.decisions, loaded.name, norm_stats=norm_stats, seed=seed)
    _forget_shapes(rewritten.model, declared)
    proto = bind_constant(to_proto(rewritten.model, loaded.name), np.asarray(weight, np.float32))
    proto.producer_name = "epsinas-onnx"
    write_model(proto, output)
    return proto


def _lumped(planned: ModelPlan, weight: float) -> onnx.ModelProto:
    options = planned.options
    target = Target(norm_stats=options.norm_stats)
    lowered = lump_model(planned.model, planned.decisions, planned.specs, planned.name, target, options.seed)
    constants = np.asarray([weight], np.float32)
    if lowered.bound:
        return lowered.to_proto(lowered.outputs, constants)
    return bind_constant(lowered.to_proto(lowered.outputs, None), constants)


def _forget_shapes(model: ir.Model, declared: Mapping[str, ir.Shape | None]) -> None:
    """Give inputs and outputs their declared shapes back, and drop the shapes that followed from concrete ones."""
    ranks = {str(value.name): rank_of(value) for value in model.graph.outputs}
    for graph in model.graphs():
        for node in graph:
            for output in node.outputs:
                output.shape = None
    for value in (*model.graph.inputs, *model.graph.outputs):
        shape = declared.get(str(value.name), value.shape)
        rank = ranks.get(str(value.name))
        value.shape = shape if shape is not None or rank is None else ir.Shape([None] * rank)
