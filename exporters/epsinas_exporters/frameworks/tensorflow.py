"""Writes TensorFlow functions and SavedModels as graphs without weights, by tf2onnx; normalisations stay themselves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before the import: it greets, and warns about missing GPUs

import tensorflow as tf
import tf2onnx
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tf2onnx.optimizer import back_to_back_optimizer

from epsinas_exporters.frameworks import ExportError, Input, Request
from epsinas_exporters.frameworks.common import call, find, first_line, silent, takes_arguments, without_weights
from epsinas_exporters.frameworks.tensorflow_batchnorm import NO_OFFSET, NO_SCALE, fuse_batch_norms
from epsinas_onnx.graph.analysis.roles import METADATA_PREFIX, Role

_OPSET = 18
_METADATA_FROM = 10  # the IR version that lets nodes carry metadata
_FOLDS = ("Conv", "BatchNormalization")  # the pair that tf2onnx's optimiser would make one


def export_function(
    function: Callable[..., Any], inputs: Sequence[Any], *, name: str | None = None, dynamic_batch: bool = True
) -> ir.Model:
    """Return a function of tensors, a `tf.function` or a `tf.Module` that can be called, as a graph without weights.

    inputs: shapes (sequences of sizes, float32) or `Input`s, batch first, or `tf.TensorSpec`s, which are taken as they
    are. name: of the graph, for reports. dynamic_batch: whether axis 0 of every input with two axes or more stays free.

    Normalisations stay: neither TensorFlow's constant folding nor tf2onnx's folds them into convolutions.

    Raises ExportError, with the first line of what TensorFlow says, where the function cannot be exported.
    """
    label = name or str(getattr(function, "__name__", type(function).__name__))
    specs = [_spec(one, index, dynamic_batch) for index, one in enumerate(inputs)]
    if not specs:
        raise ExportError(f"{label}: give the shape of each input, batch first")
    try:
        with silent():
            concrete = tf.function(lambda *tensors: function(*tensors)).get_concrete_function(*specs)
    except Exception as error:  # TensorFlow raises dozens of kinds
        raise ExportError(f"{label} cannot be traced: {first_line(error)}") from error
    return export_concrete(concrete, label)


def export_saved_model(
    path: str | os.PathLike[str], *, signature: str | None = None, name: str | None = None
) -> ir.Model:
    """Return a SavedModel as a graph without weights.

    path: the folder. signature: which of its functions; `serving_default` or the only one where it is not given.
    name: of the graph, for reports; the folder's name by default.

    Raises ExportError where the folder holds no SavedModel, or what it holds cannot be exported.
    """
    folder = Path(path)
    if not (folder / "saved_model.pb").is_file():
        raise ExportError(f"{folder} holds no SavedModel: there is no file saved_model.pb in it")
    try:
        with silent():
            loaded = tf.saved_model.load(os.fspath(folder))
    except Exception as error:  # TensorFlow raises dozens of kinds
        raise ExportError(f"{folder} cannot be loaded: {first_line(error)}") from error
    signatures = dict(loaded.signatures)
    chosen = signature or ("serving_default" if "serving_default" in signatures else next(iter(signatures), None))
    if chosen not in signatures:
        have = f"it has {', '.join(signatures)}" if signatures else "it has none; save it with signatures="
        raise ExportError(f"{folder} has no signature {chosen or 'at all'}: {have}")
    return export_concrete(signatures[chosen], name or folder.name)


def export_concrete(function: Any, name: str) -> ir.Model:
    """Return a `tf.ConcreteFunction` as a graph without weights; raises ExportError where it cannot be exported."""
    try:
        with silent(), tf.device("/cpu:0"):
            proto = _converted(function, name)
    except Exception as error:  # TensorFlow and tf2onnx raise dozens of kinds
        raise ExportError(f"{name} cannot be exported: {first_line(error)}") from error
    return without_weights(proto, name)


def export_named(request: Request) -> ir.Model:
    """Export a SavedModel's folder, or what `package.module:attribute` names or makes."""
    path = Path(request.network)
    if path.exists() or ":" not in request.network:
        return export_saved_model(path)
    found = find(request.network)
    is_network = isinstance(found, tf.Module) or (callable(found) and takes_arguments(found))
    network = found if is_network or not callable(found) else call(found, request.network)
    if not callable(network):
        raise ExportError(f"{request.network} is neither a function of tensors nor a module, nor does it make one")
    if not request.inputs:
        raise ExportError(request.needs_inputs)
    return export_function(network, request.inputs, name=request.network.rpartition(":")[2])


def _spec(given: Any, index: int, free: bool) -> tf.TensorSpec:
    if isinstance(given, tf.TensorSpec):
        return given
    one = given if isinstance(given, Input) else Input(tuple(given))
    shape = (None, *one.shape[1:]) if free and len(one.shape) > 1 else one.shape
    try:
        return tf.TensorSpec(shape, tf.as_dtype(one.dtype), name=one.name or f"input_{index}")
    except TypeError:
        raise ExportError(
            f"TensorFlow has no element type {one.dtype!r}; use float32, int64 or another of its own"
        ) from None


def _converted(function: Any, name: str) -> Any:
    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    graph_def = frozen.graph.as_graph_def(add_shapes=True)
    _fill(graph_def, {tensor.op.name for tensor in function.graph.internal_captures})
    fuse_batch_norms(graph_def)
    inputs = [tensor.name for tensor in frozen.inputs if tensor.dtype != tf.resource]
    outputs = [tensor.name for tensor in frozen.outputs if tensor.dtype != tf.resource]
    with tf.Graph().as_default():
        tf.import_graph_def(graph_def, name="")
        graph_def = tf2onnx.tf_loader.tf_optimize(inputs, outputs, graph_def)
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        converted = tf2onnx.tfonnx.process_tf_graph(
            graph, opset=_OPSET, input_names=inputs, output_names=outputs,
            tensors_to_rename=_renamed(function, inputs, outputs),
        )  # fmt: skip
    folding = back_to_back_optimizer._func_map.pop(_FOLDS, None)
    try:
        proto = tf2onnx.optimizer.optimize_graph(converted).make_model(name)
    finally:
        if folding is not None:
            back_to_back_optimizer._func_map[_FOLDS] = folding
    _mark_unlearned(proto)
    return proto


def _mark_unlearned(proto: onnx.ModelProto) -> None:
    """Record which scales and offsets are no parameters, but stand for a normalisation that learns none."""
    for node in proto.graph.node:
        for slot, name in enumerate(node.input):
            if node.op_type == "BatchNormalization" and name.partition(":")[0].endswith((NO_SCALE, NO_OFFSET)):
                node.metadata_props.add(key=f"{METADATA_PREFIX}.{slot}", value=Role.CONSTANT)
                proto.ir_version = max(proto.ir_version, _METADATA_FROM)


def _fill(graph_def: tf.compat.v1.GraphDef, variables: set[str]) -> None:
    """Give each variable values of its own: the converter drops shifts that are 0, and merges what is equal."""
    for index, node in enumerate(graph_def.node):
        if node.name not in variables or node.op != "Const":
            continue
        dtype = tf.as_dtype(node.attr["dtype"].type)
        if dtype.is_floating:
            stored = node.attr["value"].tensor
            shape = [dim.size for dim in stored.tensor_shape.dim]
            values = np.random.default_rng(index).uniform(0.5, 1.5, shape).astype(dtype.as_numpy_dtype)
            stored.CopyFrom(tf.make_tensor_proto(values, dtype))


def _renamed(function: Any, inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, str]:
    """Return the names that a user gave to inputs and outputs, by tensor."""
    names = {tensor: tensor.partition(":")[0] for tensor in inputs}
    given = function.structured_outputs
    if isinstance(given, Mapping) and len(given) == len(outputs):
        names |= dict(zip(outputs, sorted(given), strict=True))
    return names
