"""Runs a rewritten graph once for each constant, and hands back copies of its outputs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from epsinas_onnx.errors import MissingRuntime, ModelError, OutOfMemory, RunError
from epsinas_onnx.graph.passes.constant_weights import WEIGHT_INPUT
from epsinas_onnx.inputs.minibatch import each_sample
from epsinas_onnx.runtime.libraries import CUDA, TENSORRT
from epsinas_onnx.runtime.providers import Provider, provider_name, runtime

Array = npt.NDArray[Any]

DEVICES = {CUDA: "cuda", TENSORRT: "cuda"}
"""Where providers that have a memory of their own keep it, as ONNX Runtime calls it."""

CHEAPEST = ("ConstantFolding",)
"""Optimizers that find nothing in a lumped graph, and take as long as making the rest of its session does."""

FUSIONS = (
    "AttentionFusion", "BiasDropoutFusion", "BiasGeluFusion", "BiasSoftmaxFusion", "ConstantFolding", "ConstantSharing",
    "ConvActivationFusion", "ConvAddActivationFusion", "DoubleQDQPairsRemover", "DynamicQuantizeMatMulFusion",
    "EmbedLayerNormFusion", "EnsureUniqueDQForNodeUnit", "FastGeluFusion", "FreeDimensionOverrideTransformer",
    "GatherSliceToSplitFusion", "GatherToSliceFusion", "GeluFusionL1", "GeluFusionL2", "GemmActivationFusion",
    "LayerNormFusionL1", "LayerNormFusionL2", "MatMulActivationFusion", "MatMulAddFusion", "MatMulIntegerToFloatFusion",
    "MatMulNBitsFusion", "MatMulScaleFusion", "MatmulTransposeFusion", "NhwcTransformer", "PreShapeNodeElimination",
    "QDQFinalCleanupTransformer", "QDQPropagationTransformer", "QDQSelectorActionTransformer", "QuickGeluFusion",
    "ReshapeFusion", "SimplifiedLayerNormFusion", "SkipLayerNormFusion", "TransposeOptimizer", "WhereDummyDq",
)  # fmt: skip
"""Optimizers that a network of convolutions gains nothing by: each walks the whole graph, and together they take a part
of the time of its session. What pays there are blocked convolutions, and expressions that are computed once."""


class Engine:
    """A rewritten graph, ready to run with any constant.

    write: returns the graph to run for a weight. binds: whether the weight is stored in that graph rather than an input
    of it. On the CPU ONNX Runtime then folds it into the kernels and picks its blocked convolutions, which more than
    pays for a session each (benchmarks/binding.py). Otherwise one session serves all constants.
    disabled: optimizers of ONNX Runtime to leave out. small: whether the run is so short that no optimizer
    pays. eager: whether a value is used as soon as it is there, so that many outputs made of intermediate values do not
    keep those; a first run then takes half the time.

    seconds: wall-clock `session` and `run` so far.
    """

    def __init__(
        self,
        write: Callable[[Array], onnx.ModelProto],
        name: str,
        providers: Sequence[Provider],
        threads: int = 0,
        binds: bool = True,
        disabled: Sequence[str] = (),
        small: bool = False,
        eager: bool = False,
    ) -> None:
        self._write = write
        self._eager = eager
        self._disabled = list(disabled)
        self._small = small
        self._name = name
        self._providers = list(providers)
        self._threads = threads
        self._binds = binds
        self._session: Any = None
        self._weight: Array | None = None
        self._device = DEVICES.get(self.provider)
        self._held: dict[str, tuple[Array, Any]] = {}
        self.seconds = {"session": 0.0, "run": 0.0}

    @property
    def provider(self) -> str:
        """Return the provider that is asked first."""
        return provider_name(self._providers[0])

    def run(
        self,
        weight: Array,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        batch_axes: Mapping[str, int] | None = None,
    ) -> dict[str, Array]:
        """Return `outputs` by name for a weight, float32 in the shape of `epsinas_weight`.

        feeds: every graph input but the weight scalar. batch_axes: where given, the graph takes one sample at a time;
        the inputs named are cut along their axis, and the outputs stacked along a new first axis.

        The arrays are copies: an array that ONNX Runtime returned keeps the memory of its whole session alive.
        Raises RunError when ONNX Runtime refuses the graph or fails in it.
        """
        session = self._prepare(weight)
        fed = feeds if self._binds else {**feeds, WEIGHT_INPUT: weight}
        started = time.perf_counter()
        try:
            if self._device is not None and not batch_axes:
                arrays = self._run_on_device(session, fed, outputs, self._device)
            else:
                fed = {name: np.asarray(array, order="C") for name, array in fed.items()}
                if batch_axes:
                    arrays = _run_each(session, fed, outputs, batch_axes)
                else:
                    arrays = [np.array(array) for array in session.run(list(outputs), fed)]
        except Exception as error:  # ONNX Runtime raises its own kinds, all derived from Exception
            text = _sentence(error)
            if self._device is not None and any(word in text for word in _NO_ROOM):
                raise OutOfMemory(f"{self._name}: {_no_room(text, self._providers)}") from error
            raise RunError(f"{self._name}: ONNX Runtime failed: {text}") from error
        self.seconds["run"] += time.perf_counter() - started
        return dict(zip(outputs, arrays, strict=True))

    def _run_on_device(
        self, session: Any, feeds: Mapping[str, Array], outputs: Sequence[str], device: str
    ) -> list[Array]:
        """Run with inputs that stay on the device from one run to the next; only `outputs` come back."""
        values = runtime().OrtValue
        held = {}
        for name, array in feeds.items():
            before = self._held.get(name)
            if before is None or before[0] is not array:
                before = array, values.ortvalue_from_numpy(np.asarray(array, order="C"), device, 0)
            held[name] = before
        self._held = held
        binding = session.io_binding()
        for name, (_, value) in held.items():
            binding.bind_ortvalue_input(name, value)
        for name in outputs:
            binding.bind_output(name, "cpu")
        session.run_with_iobinding(binding)
        return [np.array(array) for array in binding.copy_outputs_to_cpu()]

    def _prepare(self, weight: Array) -> Any:
        same = not self._binds or (self._weight is not None and np.array_equal(self._weight, weight))
        if self._session is not None and same:
            return self._session
        self._session = None  # frees the arena of the session before
        started = time.perf_counter()
        proto = without_shapes(self._write(weight))
        ort = runtime()
        options = ort.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.log_severity_level = 4
        if self._eager and hasattr(ort, "ExecutionOrder"):
            options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
        if self._small:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            session = ort.InferenceSession(
                proto.SerializeToString(), options, providers=self._providers, disabled_optimizers=self._disabled
            )
        except Exception as error:
            raise RunError(f"{self._name}: ONNX Runtime refused the graph: {_sentence(error)}") from error
        if self.provider not in session.get_providers():
            raise MissingRuntime(
                f"ONNX Runtime fell back to {session.get_providers()[0]} although {self.provider} was asked for; check "
                f"the CUDA and cuDNN libraries, or use --provider cpu"
            )
        self._session, self._weight = session, weight
        self.seconds["session"] += time.perf_counter() - started
        return session


def to_proto(model: ir.Model, name: str) -> onnx.ModelProto:
    """Return the serialised model; raises ModelError where onnx-ir cannot write what it read."""
    try:
        return ir.to_proto(model)
    except Exception as error:
        raise ModelError(f"{name}: the graph cannot be written again: {error}") from error


def without_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Forget, in place, all shapes but the ranks of inputs; return the model.

    ONNX Runtime infers shapes in every branch of an If, the ones not taken included, and refuses the model where a
    concrete input shape does not fit one of them.
    """
    for value in proto.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            dim.Clear()
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        _forget_value_info(node)
    return proto


def _forget_value_info(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        for body in (attribute.g, *attribute.graphs) if attribute.type in (5, 10) else ():
            del body.value_info[:]
            for inner in body.node:
                _forget_value_info(inner)


INITIALIZERS_ALONE = 4
"""The IR version from which an initializer need not be an input too."""


def bind_constant(proto: onnx.ModelProto, weight: Array) -> onnx.ModelProto:
    """Return a copy of a rewritten graph whose input `epsinas_weight` is stored in it rather than fed."""
    bound = onnx.ModelProto()
    bound.CopyFrom(proto)
    for index, value in enumerate(bound.graph.input):
        if value.name == WEIGHT_INPUT:
            del bound.graph.input[index]
            break
    bound.graph.initializer.append(onnx.numpy_helper.from_array(weight, WEIGHT_INPUT))
    bound.ir_version = max(bound.ir_version, INITIALIZERS_ALONE)
    return bound


def _run_each(
    session: Any, feeds: Mapping[str, Array], outputs: Sequence[str], batch_axes: Mapping[str, int]
) -> list[Array]:
    rows = [
        [np.array(array) for array in session.run(list(outputs), sample)] for sample in each_sample(feeds, batch_axes)
    ]
    return [np.stack(column) for column in zip(*rows, strict=True)]


_NO_ROOM = ("Failed to allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")


def _no_room(text: str, providers: Sequence[Provider]) -> str:
    """Return the sentence for a run that did not get the memory that it asked for."""
    limits = [provider[1].get("gpu_mem_limit") for provider in providers if not isinstance(provider, str)]
    limit = next((int(limit) for limit in limits if limit), None)
    allowed = "" if limit is None else f" than the {limit / 1e9:.3g} GB that --device-memory leaves each worker"
    return f"needs more memory{allowed}; try a smaller --batch or --shape, or fewer --jobs (ONNX Runtime: {text})"


def _sentence(error: BaseException) -> str:
    """Return ONNX Runtime's message on one line, without its error code, source path and call stack."""
    text = " ".join(str(error).split())
    marker = "Status Message: "
    if marker in text:
        text = text.split(marker, 1)[1]
    text = text.split(" : ", 3)[-1] if text.startswith("[ONNXRuntimeError]") else text
    return text if len(text) <= 300 else text[:297] + "..."
