"""Derivatives of small models: what the reverse pass writes, run, beside central differences in float64."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
from onnx.reference import ReferenceEvaluator
from onnx_ir.passes.common import RemoveUnusedNodesPass

from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.proxies.reverse import append_gradient

from ..builders import build

Array = npt.NDArray[Any]
STEP = 1e-5


def in_double(graph: str, opset: int, tensors: dict[str, Any]) -> onnx.ModelProto:
    """Build a model of doubles; `float` in the text stands for these, and float tensors become double."""
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    arrays = {n: a.astype(np.float64) if a.dtype.kind == "f" else a for n, a in arrays.items()}
    return build(re.sub(r"\bfloat\b", "double", graph), opset, **arrays)


def weighed(proto: onnx.ModelProto) -> ir.Model:
    """Return the model with shapes, each output times fixed random numbers, so that no sum is constant."""
    model = ir.from_proto(proto)
    infer_shapes(model)
    rng = np.random.default_rng(3)
    for index, output in enumerate(list(model.graph.outputs)):
        numbers = np.asarray(rng.uniform(0.5, 1.5, tuple(output.shape)), output.dtype.numpy())
        weight = ir.Value(name=f"weight{index}", const_value=ir.tensor(numbers), type=output.type, shape=output.shape)
        model.graph.register_initializer(weight)
        product = ir.Node("", "Mul", [output, weight], name=f"weighed{index}")
        product.outputs[0].name, product.outputs[0].type = f"weighed{index}", output.type
        product.outputs[0].shape = output.shape
        model.graph.append(product)
        model.graph.outputs[index] = product.outputs[0]
    return model


def differentiate(model: ir.Model, wrt: list[str] | None = None) -> onnx.ModelProto:
    """Return a copy of the model whose only outputs are its gradients by its float inputs, or by `wrt`."""
    model = model.clone()
    floats = [v for v in model.graph.inputs if v.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE)]
    if wrt is not None:
        values = {str(v.name): v for v in (*model.graph.inputs, *(o for n in model.graph for o in n.outputs))}
        floats = [values[name] for name in wrt]
    gradients = append_gradient(model, list(model.graph.outputs), floats)
    model.graph.outputs[:] = gradients
    RemoveUnusedNodesPass()(model)
    proto = ir.to_proto(model)
    if proto.opset_import[0].version > 20 or "GroupNormalization" not in {node.op_type for node in proto.graph.node}:
        onnx.checker.check_model(proto)  # which takes the old form for a deprecated one
    return proto


def evaluator(proto: onnx.ModelProto) -> Callable[[dict[str, Array]], list[Array]]:
    """Return what runs a model of doubles: ONNX Runtime, or the reference where that has no kernel."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if any(node.op_type in ("LSTM", "GRU") for node in proto.graph.node):  # refused only once they are run
        reference = ReferenceEvaluator(proto)
        return lambda feeds: reference.run(None, feeds)
    try:
        session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception:
        reference = ReferenceEvaluator(proto)
        return lambda feeds: reference.run(None, feeds)
    return lambda feeds: session.run(None, feeds)


def run(proto: onnx.ModelProto, feeds: dict[str, Array], optimized: bool = True) -> list[Array]:
    """Run by ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def drawn(proto: onnx.ModelProto, seed: int = 0) -> dict[str, Array]:
    """Return normal inputs."""
    rng = np.random.default_rng(seed)
    feeds = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        shape = [d.dim_value for d in kind.shape.dim]
        if dtype == np.bool_:
            feeds[value.name] = rng.uniform(size=shape) > 0.5
        elif np.issubdtype(dtype, np.integer):
            feeds[value.name] = rng.integers(0, 3, shape).astype(dtype)
        else:
            feeds[value.name] = np.asarray(rng.standard_normal(shape), dtype)
    return feeds


def by_differences(model: ir.Model, feeds: dict[str, Array], names: list[str]) -> list[Array]:
    """Return the gradients of the sum of all outputs by central differences."""
    evaluate = evaluator(ir.to_proto(model))

    def value(name: str, array: Array) -> float:
        return float(sum(np.sum(out) for out in evaluate({**feeds, name: array})))

    gradients = []
    for name in names:
        gradient = np.zeros_like(feeds[name])
        for place in np.ndindex(*gradient.shape):
            up, down = feeds[name].copy(), feeds[name].copy()
            up[place] += STEP
            down[place] -= STEP
            gradient[place] = (value(name, up) - value(name, down)) / (2 * STEP)
        gradients.append(gradient)
    return gradients


def in_single(graph: str, opset: int, tensors: dict[str, Any]) -> onnx.ModelProto:
    """Build the same model of floats."""
    arrays = {name: np.asarray(value) for name, value in tensors.items()}
    return build(graph, opset, **{n: a.astype(np.float32) if a.dtype.kind == "f" else a for n, a in arrays.items()})


def check(graph: str, opset: int = 21, seed: int = 0, feeds: dict[str, Array] | None = None, **tensors: Any) -> None:
    """Hold the reverse pass of a model to central differences: in float64, and in float32 by ONNX Runtime."""
    double = in_double(graph, opset, tensors)
    feeds = {**drawn(double, seed), **(feeds or {})}
    model = weighed(double)
    names = [v.name for v in double.graph.input if v.type.tensor_type.elem_type == onnx.TensorProto.DOUBLE]
    expected = by_differences(model, feeds, names)
    exact = evaluator(differentiate(model))(feeds)
    for name, gradient, truth in zip(names, exact, expected, strict=True):
        assert gradient.dtype == np.float64
        assert gradient.shape == truth.shape
        np.testing.assert_allclose(gradient, truth, rtol=1e-6, atol=1e-7 * max(1.0, np.abs(truth).max()), err_msg=name)
        assert np.abs(truth).max() > 0
    narrow = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in feeds.items()}
    for name, gradient, truth in zip(
        names, run(differentiate(weighed(in_single(graph, opset, tensors))), narrow), expected, strict=True
    ):
        largest = max(1.0, np.abs(truth).max())
        np.testing.assert_allclose(gradient, truth, rtol=1e-3, atol=1e-4 * largest, err_msg=name)


def adjoint(graph: str, opset: int = 21, seed: int = 0, **tensors: Any) -> None:
    """Hold the reverse pass of a linear model to the identity <w, f(v)> = <gradient, v> for a v of its own."""
    proto = in_single(graph, opset, tensors)
    model = weighed(proto)
    there, here = drawn(proto, seed), drawn(proto, seed + 1)
    (gradient,) = run(differentiate(model, [proto.graph.input[0].name]), there)
    (value,) = run(ir.to_proto(model), here)
    assert gradient.shape == next(iter(here.values())).shape
    left, right = value.astype(np.float64).sum(), np.vdot(gradient, next(iter(here.values())).astype(np.float64))
    assert abs(left - right) <= 1e-4 * max(1.0, np.abs(value).sum(), float(np.abs(gradient).sum()) * 0.1)
