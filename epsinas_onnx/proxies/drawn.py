"""Makes the graph whose weights are drawn by role: what the scores that look at untrained networks run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import ShapeError
from epsinas_onnx.graph.analysis.roles import NORMALISATIONS, Role, Use, fan
from epsinas_onnx.graph.emitter import PREFIX, Emitter
from epsinas_onnx.graph.passes.constant_weights import drop_unused, no_shape, replace_learned
from epsinas_onnx.scoring.plan import ModelPlan

Array: TypeAlias = npt.NDArray[Any]

DRAWN = "epsinas.drawn"
"""Key in the `meta` of a drawn initializer: the first `Use` that it is drawn for."""

PRELU_SLOPE = 0.25
"""What PReLU starts from (He et al., 2015)."""


class Draw(StrEnum):
    """How weights of layers are drawn; everything else starts the same way."""

    KAIMING = "kaiming"
    """Normal with variance 2 / fan-out (He et al., 2015)."""
    GAUSSIAN = "gaussian"
    """Standard normal, as the Zen-score has it."""
    UNIFORM = "uniform"
    """Uniform between 0 and 1."""
    XAVIER = "xavier"
    """Normal with variance 2 / (fan-in + fan-out) (Glorot and Bengio, 2010)."""
    ORTHOGONAL = "orthogonal"
    """Rows that are orthonormal, or columns where they are fewer (Saxe et al., 2014)."""


@dataclass(frozen=True)
class DrawnGraph:
    """A graph with drawn weights.

    variances: of each batch normalisation of the main graph over the minibatch, one entry a channel.
    """

    model: ir.Model
    variances: tuple[ir.Value, ...]


def drawn_graph(
    planned: ModelPlan, seed: int, draw: Draw = Draw.KAIMING, *, normalised: bool = True, owned: bool = False
) -> DrawnGraph:
    """Return the graph of a plan with weights that are drawn by role; no weight is read.

    normalised: whether BatchNormalization takes the statistics of the minibatch; otherwise it stays the operator that
    it is, of mean 0 and variance 1. owned: whether nobody else needs `planned`; otherwise it is not modified.

    Weights of layers are drawn as `draw` says, embeddings are standard normal, scales of normalisations and other
    factors are 1, biases 0, slopes of PRelu 0.25. BatchNormalization takes the statistics of the minibatch and is
    decomposed into elementary operators. Every tensor has a generator of its own, made of `seed` and of its place among
    those that are drawn, so that names do not count, but the order of nodes does; one tensor in several places of one
    shape is drawn once. Matrices are the same whether a product reads them transposed or not. A tensor is drawn when
    it is read first.

    Weights and embeddings are initializers with `DRAWN` in their `meta`, and every value that shape inference reaches
    has its shape.

    Raises ShapeError for a weight without a known shape, ModelError when a kept constant's data file is missing.
    """
    if not planned.inferred:
        planned = planned.with_shapes()
    elif not owned:
        planned = planned.copy()
    model = planned.model
    fills = _Drawn(model, seed, draw, planned.name)
    statistics = replace_learned(model, planned.decisions, planned.name, fills, "batch" if normalised else "stored")
    if not normalised:
        for use in planned.decisions.with_role(Role.STATISTICS):
            use.node.replace_input_with(use.slot, fills.statistics(use))
    drop_unused(model, planned.name)
    alive = set(model.graph)
    return DrawnGraph(model, tuple(variance for _, variance in statistics if variance.producer() in alive))


class StoringEmitter(Emitter):
    """Makes nodes whose constants are initializers of the main graph, each stored once, so that graphs stay small."""

    def __init__(self, model: ir.Model, prefix: str) -> None:
        super().__init__(model.opset_imports.get("", 1), prefix)
        self._graph = model.graph
        self._stored: dict[tuple[object, ...], ir.Value] = {}

    def constant(self, array: Array) -> ir.Value:
        """Return an initializer that holds `array`."""
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._stored:
            name = self._fresh("constant")
            tensor = ir.Tensor(array, name=name)
            shape = ir.Shape(array.shape)
            value = ir.Value(name=name, shape=shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
            self._graph.register_initializer(value)
            self._stored[key] = value
        return self._stored[key]


class _Drawn:
    """Initializers of the main graph in place of learned tensors."""

    def __init__(self, model: ir.Model, seed: int, draw: Draw, name: str) -> None:
        self.emitter = StoringEmitter(model, PREFIX)
        self._graph, self._seed, self._draw, self._name = model.graph, seed, draw, name
        self._made: dict[tuple[object, ...], ir.Value] = {}
        self._count = 0

    def of_role(self, use: Use) -> ir.Value:
        """Return the initializer that a weight, bias or embedding use reads from now on."""
        if use.shape is None:
            raise ShapeError(no_shape(use, self._name))
        shape, dtype = use.shape, use.value.dtype or ir.DataType.FLOAT
        start = _start(use)
        if start is not None:
            return self._filled(start, shape, dtype)
        key = (use.role, shape, dtype, *(use.stored or (use.value,)))
        if key not in self._made:
            self._count += 1
            number = self._count
            turned = use.role is Role.WEIGHT and _is_turned(use)
            draw = self._draw if use.role is Role.WEIGHT else Draw.GAUSSIAN
            fans = fan(use)
            self._made[key] = self._initializer(shape, dtype, lambda: self._values(number, shape, draw, fans, turned))
            self._made[key].meta[DRAWN] = use
        return self._made[key]

    def scalar(self, dtype: ir.DataType) -> ir.Value:
        """Return the scale of a batch normalisation."""
        return self._filled(1.0, (), dtype)

    def statistics(self, use: Use) -> ir.Value:
        """Return the mean or variance of a normalisation whose minibatch nobody looks at."""
        if use.shape is None:
            raise ShapeError(no_shape(use, self._name))
        return self._filled(float(use.slot == 4), use.shape, use.value.dtype or ir.DataType.FLOAT)

    def _filled(self, start: float, shape: tuple[int, ...], dtype: ir.DataType) -> ir.Value:
        key = (start, shape, dtype)
        if key not in self._made:
            self._made[key] = self._initializer(shape, dtype, lambda: np.full(shape, start, np.float32))
        return self._made[key]

    def _values(self, number: int, shape: tuple[int, ...], draw: Draw, fans: tuple[int, int], turned: bool) -> Array:
        generator = np.random.default_rng([self._seed, number])
        wanted = shape[::-1] if turned else shape
        if draw is Draw.UNIFORM:
            drawn: Array = generator.random(wanted, np.float32)
        else:
            drawn = generator.standard_normal(wanted, np.float32)
        if draw is Draw.ORTHOGONAL:
            drawn = _orthogonal(drawn)
        elif draw in (Draw.KAIMING, Draw.XAVIER):
            drawn *= np.float32(math.sqrt(2 / (fans[1] if draw is Draw.KAIMING else sum(fans))))
        return np.ascontiguousarray(drawn.T) if turned else drawn

    def _initializer(self, shape: tuple[int, ...], dtype: ir.DataType, make: Callable[[], Array]) -> ir.Value:
        name, dims = f"{PREFIX}drawn.{len(self._made)}", ir.Shape(shape)

        def tensor() -> ir.TensorProtocol:
            return ir.Tensor(make().astype(dtype.numpy(), copy=False), name=name)

        lazy = ir.LazyTensor(tensor, dtype=dtype, shape=dims, name=name, cache=True)
        value = ir.Value(name=name, shape=dims, type=ir.TensorType(dtype), const_value=lazy)
        self._graph.register_initializer(value)
        return value


def _orthogonal(normal: Array) -> Array:
    """Return normal numbers made orthonormal: the first axis against all others."""
    rows = normal.shape[0] if normal.ndim > 1 else 1
    matrix = normal.reshape(rows, -1).astype(np.float64)
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    unit, upper = np.linalg.qr(tall)
    unit = unit * np.where(np.diag(upper) < 0, -1.0, 1.0)  # otherwise not every rotation is as likely
    return (unit if tall is matrix else unit.T).reshape(normal.shape).astype(np.float32)


def _is_turned(use: Use) -> bool:
    """Whether a matrix is stored as `[inputs, outputs]`, and not as `[outputs, inputs]`, in whose order it is drawn."""
    if use.shape is None or len(use.shape) != 2 or use.slot != 1:
        return False
    return use.node.op_type == "MatMul" or (use.node.op_type == "Gemm" and not use.node.attributes.get_int("transB", 0))


def is_drawn_layer(use: Use) -> bool:
    """Whether a use makes its node a layer: one that sums products of a weight that is drawn."""
    return use.role is Role.WEIGHT and _start(use) is None


def _start(use: Use) -> float | None:
    """Return what all entries start from, None for the weight of a layer and for an embedding."""
    if use.role is Role.BIAS:
        return 0.0
    if use.role is not Role.WEIGHT:
        return None
    if use.node.op_type == "PRelu":
        return PRELU_SLOPE
    return 1.0 if use.node.op_type in NORMALISATIONS | {"Mul", "Div"} else None
