"""Owns what the scores of one model share: the planned graph with drawn weights, its minibatch, and running it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.errors import ModelError, OutOfMemory, RunError, ShapeError, UnsupportedError
from epsinas_onnx.graph.analysis.folded_norms import AUTO
from epsinas_onnx.graph.analysis.roles import Role, Use
from epsinas_onnx.graph.analysis.shapes import Shapes, attempts, free_dimensions, input_specs, known_shape
from epsinas_onnx.graph.emitter import PREFIX, Emitter
from epsinas_onnx.graph.load import LoadedModel, ModelSource, load_model
from epsinas_onnx.graph.passes.infer_shapes import infer_shapes
from epsinas_onnx.graph.traversal import StaticValues
from epsinas_onnx.inputs.minibatch import Minibatch
from epsinas_onnx.proxies.activations import Activation, find_activations
from epsinas_onnx.proxies.blocks import block_features
from epsinas_onnx.proxies.drawn import DRAWN, Draw, DrawnGraph, StoringEmitter, drawn_graph
from epsinas_onnx.proxies.samples import may_be_moved
from epsinas_onnx.proxies.written import needed_proto
from epsinas_onnx.runtime.memory import peak_bytes, refuse_if_too_large
from epsinas_onnx.runtime.providers import CPU, Provider, choose_providers, provider_name
from epsinas_onnx.runtime.session import FUSIONS, Engine
from epsinas_onnx.scoring.batching import Batching, decide_batching
from epsinas_onnx.scoring.executors import ExecutionConfig
from epsinas_onnx.scoring.options import ProviderName, ScoreOptions, score_options
from epsinas_onnx.scoring.plan import ModelPlan, plan

Array: TypeAlias = npt.NDArray[Any]
T = TypeVar("T")

DEFAULT_BATCH = 32
"""Samples, as Mellor et al. and most who followed take."""
_LARGEST = 1_900_000_000
"""Bytes of weights: a protobuf holds no more than 2 GiB."""
_NO_WEIGHT = np.zeros(1, np.float32)
_FUSED = frozenset({"Attention", "Erf", "Gelu", "LayerNormalization", "Softmax", "Tanh"})
"""Operators of which ONNX Runtime makes one with those around them, which pays."""


def prepare(
    source: ModelSource | LoadedModel,
    *,
    batch: int = DEFAULT_BATCH,
    inputs: Any = "normal",
    seed: int = 0,
    shapes: Shapes | None = None,
    outputs: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    restore_batchnorm: str = AUTO,
    threads: int = 0,
    providers: ProviderName = "auto",
    device_memory: float = 0.0,
    last: bool = False,
) -> Prepared:
    """Load and plan a model for its training-free scores.

    Args:
        source: a path, the file's bytes, an `onnx.ModelProto`, an `onnx_ir.Model`, or a loaded model; not modified.
        batch: samples in the minibatch, at least 2, 32 unless given; given arrays and a file that fixes several decide.
        inputs: `normal` (standard normal floats, and tokens for integers, seeded) or what else `score` takes.
        seed: of random inputs and of the weights.
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        outputs: as for `score`, the first of several.
        roles: as for `score`.
        restore_batchnorm: as for `score`.
        threads: intra-op threads, 0 for one a core.
        providers: `cpu`, `cuda`, `tensorrt`, or `auto`.
        device_memory: GB that graphs may take of a GPU's memory, 0 for no limit.
        last: whether one plan is all that will ever be made of the model (`Proxy.plans_once`).

    Raises:
        UsageError: an argument is wrong.
        ModelError: the model cannot be read or planned. Where the file leaves sizes open that nobody gave, the sizes
            that scoring tries are tried in turn, until one runs.
    """
    options = score_options(
        inputs=inputs, batch=batch, seed=seed, shapes=shapes, outputs=outputs, roles=roles,
        restore_batchnorm=restore_batchnorm, threads=threads, providers=providers,
        device_memory=device_memory,
    )  # fmt: skip
    chosen = choose_providers(options.providers, options.device_share)
    loaded = source if isinstance(source, LoadedModel) else load_model(source, options.named_inputs)
    if not free_dimensions(loaded.model, loaded.name, options.shapes):
        prepared = Prepared.of(loaded, options, chosen)
        return dataclasses.replace(prepared, last=last and loaded is not source)
    first: ModelError | None = None
    for attempt in range(attempts(loaded.model)):
        try:
            prepared = Prepared.of(loaded, options, chosen, attempt)
            if not prepared.per_sample:
                prepared.fresh().run([prepared.output.name or ""])
            return prepared
        except (ShapeError, RunError) as error:
            first = first or error
        except OutOfMemory:
            if first is None:
                raise
    assert first is not None
    raise first


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A model that is planned for a minibatch, and whose weights are drawn.

    Attributes:
        loaded: the model as it was read.
        batching: how samples go through; `planned` is for one sample where they go through one by one.
        minibatch: what is fed.
        options: what the caller asked for.
        providers: where graphs run, best first.
        draw: how the weights of layers are drawn.
        normalised: whether normalisations by batches take the statistics of the minibatch (`drawn_graph`).
        given: a plan that was made already, None where `planned` is made of `loaded` when it is asked for first.
        owned: whether nobody else needs the graph of `given`, which is then not copied.
        last: whether the one plan that is made of `loaded` may take its graph.
    """

    loaded: LoadedModel
    batching: Batching
    minibatch: Minibatch
    options: ScoreOptions
    providers: Sequence[Provider]
    draw: Draw = Draw.KAIMING
    normalised: bool = True
    given: ModelPlan | None = None
    owned: bool = False
    last: bool = False

    @classmethod
    def of(
        cls, loaded: LoadedModel, options: ScoreOptions, providers: Sequence[Provider], attempt: int = 0
    ) -> Prepared:
        """Decide how samples go through; attempt: which default size to take for dimensions that nobody named."""
        minibatch = Minibatch(options.inputs, options.seed, loaded.name)
        first = input_specs(loaded.model, loaded.name, 1, options.shapes, attempt)
        if not first:
            raise ModelError(f"{loaded.name}: the model has no input, so its output cannot depend on one")
        config = ExecutionConfig(providers, options.threads)
        wanted = options.graph_options(shapes=minibatch.shapes(first), attempt=attempt)
        batching = decide_batching(loaded, first, minibatch, options.batch, wanted, config)
        return cls(loaded, batching, minibatch, options, providers)

    @property
    def name(self) -> str:
        """Return how messages call the model."""
        return self.loaded.name

    @cached_property
    def planned(self) -> ModelPlan:
        """Shapes, roles and the output that is scored. Counts that need none of it do not pay for it."""
        return self.given or plan(self.loaded, self.batching.planned, self.batching.options, last=self.last)

    @property
    def batch(self) -> int:
        """Return how many samples there are."""
        return self.batching.planned

    @property
    def seed(self) -> int:
        """Return the seed of inputs and weights."""
        return self.options.seed

    @property
    def per_sample(self) -> bool:
        """Return whether the file fixes the batch to 1 and cannot be re-batched, so that no minibatch can be run."""
        return self.batching.per_sample

    def with_seed(self, seed: int) -> Prepared:
        """Return the same model with other weights and inputs, planned already."""
        options = dataclasses.replace(self.options, seed=seed)
        minibatch = Minibatch(options.inputs, seed, self.name)
        return dataclasses.replace(self.fresh(), options=options, minibatch=minibatch)

    def with_draw(self, draw: Draw) -> Prepared:
        """Return the same model with weights that are drawn in another way."""
        return dataclasses.replace(self.fresh(), draw=draw)

    def fresh(self) -> Prepared:
        """Return the same with a graph that nothing was appended to."""
        assert not self.owned  # its graph may be drawn already
        return dataclasses.replace(self, given=self.planned)

    @cached_property
    def shaped(self) -> ModelPlan:
        """The same with all shapes, in place: a plan of a graph has no use for unknown ones."""
        planned = self.planned
        if planned.inferred:
            return planned
        infer_shapes(planned.model)
        return dataclasses.replace(planned, inferred=True)

    @cached_property
    def _drawn(self) -> DrawnGraph:
        return drawn_graph(self.shaped, self.seed, self.draw, normalised=self.normalised, owned=self.owned)

    @property
    def graph(self) -> ir.Model:
        """Return the graph with drawn weights; scores append nodes to it, and never change what is there."""
        return self._drawn.model

    @property
    def variances(self) -> tuple[ir.Value, ...]:
        """Return the variance of each batch normalisation over the minibatch, one entry a channel, in graph order."""
        return self._drawn.variances

    @cached_property
    def feeds(self) -> Mapping[str, Array]:
        """The minibatch, by input name."""
        specs = self.planned.specs
        sizes = {spec.name: math.prod(spec.shape) * spec.dtype.itemsize for spec in specs}
        largest = max(sizes, key=lambda name: sizes[name])
        refuse_if_too_large((math.ceil(sum(sizes.values())), largest), self.name)
        return self.minibatch.feeds(specs, self.planned.demands)

    @property
    def output(self) -> ir.Value:
        """Return the output that is scored: the first that holds floats, what a softmax at the end reads."""
        return self.graph.graph.outputs[0]

    @cached_property
    def inputs(self) -> tuple[ir.Value, ...]:
        """The graph's inputs in which samples differ, so masks of ones apart."""
        axes = {spec.name: spec.batch_axis for spec in self.planned.specs}
        return tuple(
            value
            for value in self.graph.graph.inputs
            if (axis := axes.get(str(value.name))) is not None and _varies(self.feeds[str(value.name)], axis)
        )

    @cached_property
    def static(self) -> StaticValues:
        """The values of the graph that no input changes."""
        return StaticValues.of(self.graph)

    @cached_property
    def emitter(self) -> Emitter:
        """Makes nodes that are appended to the graph with `append`, under names that cannot clash."""
        return StoringEmitter(self.graph, f"{PREFIX}proxy.")

    def append(self) -> None:
        """Append what `emitter` has collected to the graph."""
        self.graph.graph.extend(self.emitter.take())

    def once(self, key: str, make: Callable[[Prepared], T]) -> T:
        """Return what `make` gives of this model, made once however many scores ask for it under `key`."""
        if key not in self._shared:
            self._shared[key] = make(self)
        found: T = self._shared[key]
        return found

    @cached_property
    def _shared(self) -> dict[str, Any]:
        return {}

    @cached_property
    def activations(self) -> tuple[Activation, ...]:
        """The pre-activations of ReLU and its kin, in graph order (`activations`)."""
        return find_activations(self.graph)

    @cached_property
    def layers(self) -> tuple[ir.Node, ...]:
        """The nodes of the main graph that sum products of a drawn weight and the signal, in order."""
        return tuple(node for node in self.graph.graph if is_layer(node))

    @cached_property
    def features(self) -> tuple[ir.Value, ...]:
        """What each block gives, in order, the head apart (`blocks`)."""
        return tuple(block_features(self.graph, self.inputs, self.layers))

    def shape(self, value: ir.Value) -> tuple[int, ...] | None:
        """Return the shape of a value of the user's graph; where inference does not find it, as a run has it."""
        return known_shape(value) or self._measured.get(str(value.name))

    def sample_axis(self, value: ir.Value) -> int | None:
        """Return the axis along which the samples of a value lie, each in one piece; None where nothing tells.

        The axis may be longer than there are samples: rows of a sample then follow each other, as after merging the
        axes of samples and tokens.
        """
        shape = self.shape(value)
        if not shape:
            return None
        moved = self.batch > 1 and self.batch in shape[1:] and self.once("moved", lambda one: may_be_moved(one.planned))
        if shape[0] == self.batch and not moved:
            return 0
        other = (self._one_more or {}).get(str(value.name))
        if other is None or len(other) != len(shape):
            return None
        changed = [axis for axis, (size, larger) in enumerate(zip(shape, other, strict=True)) if size != larger]
        if len(changed) != 1:
            return None
        (axis,) = changed
        rows, rest = divmod(shape[axis], self.batch)
        return axis if rest == 0 and (axis == 0 or rows == 1) and other[axis] == rows * (self.batch + 1) else None

    @cached_property
    def _one_more(self) -> Mapping[str, tuple[int, ...]] | None:
        """Shapes of all values for one sample more, None where the file fixes how many there are."""
        if self.batching.fixed_batch_size or self.per_sample:
            return None
        more = plan(self.loaded, self.batch + 1, self.batching.options, infer=True)
        batching = dataclasses.replace(self.batching, samples=self.batch + 1)
        larger = dataclasses.replace(self, given=more, batching=batching)
        values = [value for node in larger.graph.graph for value in node.outputs]
        shapes = {str(value.name): larger.shape(value) for value in values}
        return {name: shape for name, shape in shapes.items() if shape is not None}

    @cached_property
    def _measured(self) -> Mapping[str, tuple[int, ...]]:
        """Shapes that inference did not find, of the values of floats that depend on the input; nothing else is run."""
        made = dataclasses.replace(self.fresh(), minibatch=Minibatch("auto", self.seed, self.name))
        unknown = [
            value
            for node in made.graph.graph
            for value in node.outputs
            if value.name
            and known_shape(value) is None
            and value not in made.static
            and value.dtype == ir.DataType.FLOAT
        ]
        sizes = [made.emitter.op("Shape", [value]) for value in unknown]
        for size in sizes:
            size.type = ir.TensorType(ir.DataType.INT64)
        made.append()
        if not unknown or self.per_sample:
            return {}
        found = made.run([str(size.name) for size in sizes])
        return {
            str(value.name): tuple(int(entry) for entry in found[str(size.name)])
            for value, size in zip(unknown, sizes, strict=True)
        }

    def run(
        self, names: Sequence[str], feeds: Mapping[str, Array] | None = None, small: bool = False
    ) -> dict[str, Array]:
        """Return values of the graph by name, for the minibatch or for other arrays of the same shapes.

        What is not needed for them is not run. The same names again are run by the same session. small: whether the
        run is so short that no optimizer pays.

        Raises UnsupportedError where samples cannot go through together, OutOfMemory before too much is allocated, and
        RunError where ONNX Runtime refuses the graph or fails.
        """
        self.check_minibatch()
        key = tuple(names)
        engine = self._engines.get(key)
        if engine is None:
            engine = self._engines[key] = self._engine(key, small)
        return engine.run(_NO_WEIGHT, self.feeds if feeds is None else feeds, key)

    def check_minibatch(self) -> None:
        """Raise UnsupportedError where samples cannot go through together."""
        if self.per_sample:
            raise UnsupportedError(
                f"{self.name}: the file fixes the batch to 1 and cannot be re-batched, and this score compares samples "
                f"that go through together; export the model with a dynamic batch"
            )

    @cached_property
    def _engines(self) -> dict[tuple[str, ...], Engine]:
        return {}

    def _engine(self, names: Sequence[str], small: bool) -> Engine:
        graph = self.graph.graph
        by_name = {str(value.name): value for node in graph for value in node.outputs}
        before = list(graph.outputs)
        graph.outputs[:] = [by_name[name] for name in dict.fromkeys(names)]
        try:
            weights = sum(v.const_value.nbytes for v in graph.initializers.values() if v.const_value is not None)
            if weights > _LARGEST:
                raise OutOfMemory(
                    f"{self.name}: {weights:,} bytes of weights would have to be drawn, and a graph holds no more than "
                    f"{_LARGEST:,}; measure a smaller model of this architecture"
                )
            peak, largest = peak_bytes(self.graph)
            refuse_if_too_large((peak + 2 * weights, largest), self.name)
        finally:
            graph.outputs[:] = before
        proto = needed_proto(self.graph, [by_name[name] for name in dict.fromkeys(names)], self.name)
        operators = {node.op_type for node in proto.graph.node}
        blocked = provider_name(self.providers[0]) == CPU and "Conv" in operators and not operators & _FUSED
        return Engine(
            lambda _: proto, self.name, self.providers, self.options.threads, disabled=FUSIONS if blocked else (),
            small=small, eager=True,
        )  # fmt: skip


def is_layer(node: ir.Node) -> bool:
    """Return whether a node of a drawn graph sums products of a drawn weight and the signal."""
    drawn = (value.meta.get(DRAWN) for value in node.inputs if value is not None)
    return any(isinstance(use, Use) and use.role is Role.WEIGHT for use in drawn)


def _varies(array: Array, axis: int) -> bool:
    return bool((array != np.take(array, [0], axis)).any())
