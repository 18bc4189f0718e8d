"""Runs a planned model for some constants: the lumped graph for all of them at once, or the plain one for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.graph.analysis.constant_sizes import refuse_large_constants
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.lump.lower import CutOff, LumpedModel, lump
from epsinas_onnx.lump.step import ShapesMissing, Target
from epsinas_onnx.lump.unlumpable import Unlumpable
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.runtime.memory import peak_bytes, refuse_if_too_large
from epsinas_onnx.runtime.providers import CPU, Provider, provider_name
from epsinas_onnx.runtime.session import CHEAPEST, Engine, bind_constant, to_proto
from epsinas_onnx.scoring.diagnosis import Tracer, expose, unreachable
from epsinas_onnx.scoring.feeds import Feeds
from epsinas_onnx.scoring.plan import ModelPlan, plain_graph

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ExecutionConfig:
    """Where and how graphs run. threads: intra-op threads, 0 for one a core. jobs: runs at a time, for memory."""

    providers: Sequence[Provider]
    threads: int = 0
    jobs: int = 1
    lump: bool = True

    @property
    def on_cpu(self) -> bool:
        """Whether the CPU provider runs everything."""
        return [provider_name(provider) for provider in self.providers] == [CPU]


@dataclass(frozen=True)
class ForwardResult:
    """What one constant gave. output: the compared values, flattened together; of a lumped graph each class as often
    as it must count. channel_stats: mean and variance by channel of the batch normalisations that are watched.
    """

    output: Array
    channel_stats: Sequence[tuple[Array, Array]] = ()

    @classmethod
    def nothing(cls) -> ForwardResult:
        """Return what stands for an output where nothing need be run."""
        return cls(np.zeros(1, np.float32))


class Executor(Protocol):
    """A graph that is ready to run."""

    @property
    def together(self) -> bool:
        """Return whether one run takes all constants, so that asking for one alone saves nothing."""

    @property
    def lumped(self) -> bool:
        """Return whether identical channels are merged."""

    @property
    def seconds(self) -> Mapping[str, float]:
        """Return wall-clock `session` and `run` so far."""

    def run(
        self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> list[ForwardResult]:
        """Return what each constant gives; axes: where the samples are cut apart, None to run them together."""


class NotRun:
    """Stands for what ran a model whose result is that of another one."""

    together = False

    def __init__(self, lumped: bool) -> None:
        self.lumped = lumped
        self.seconds = {"session": 0.0, "run": 0.0}

    def run(self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> NoReturn:
        """Refuse to: nothing asks for it."""
        raise AssertionError("a model was to be run whose result is known")


def choose_executor(
    planned: ModelPlan, config: ExecutionConfig, constants: int, feeds: Feeds
) -> tuple[Executor | None, CutOff | None]:
    """Return what runs a plan, or None with what cuts its output off from the input.

    What the partitions prove holds for the plain graph too, so they are asked even where it is the one to run.
    """
    lowered = _prove(planned, config, constants, feeds)
    if lowered is not None and lowered.cut_off is not None:
        return None, lowered.cut_off
    if lowered is not None and config.lump:
        return LumpedExecutor(lowered, planned, config), None
    plain = PlainExecutor(planned, config)
    return (plain, None) if plain.cut_off is None else (None, plain.cut_off)


def single_executor(planned: ModelPlan, config: ExecutionConfig, feeds: Feeds) -> Executor:
    """Return what runs a plan for one constant at a time."""
    lowered = _prove(planned, config, 1, feeds) if config.lump else None
    return PlainExecutor(planned, config) if lowered is None else LumpedExecutor(lowered, planned, config)


def _prove(planned: ModelPlan, config: ExecutionConfig, constants: int, feeds: Feeds) -> LumpedModel | None:
    """Lower a plan, which tells what the partitions prove; None where it cannot be lowered."""
    try:
        return lower(planned, config, constants, feeds=feeds)
    except Unlumpable:
        return None


def lower(
    planned: ModelPlan,
    config: ExecutionConfig,
    constants: int,
    bound: bool = True,
    feeds: Feeds | None = None,
    evaluated: bool = False,
) -> LumpedModel:
    """Return the lumped graph of a planned model for so many constants a run.

    feeds: what it is lowered for, if any. evaluated: whether our own evaluator runs it.
    """
    options = planned.options
    fixed, parts = None, None
    if feeds is not None:
        fixed = feeds.fixed
        parts = feeds.parts(planned.specs) if config.lump else None  # otherwise nothing is run but the plain graph
    if evaluated:
        target = Target.evaluated(options.norm_stats)
    else:
        target = Target(constants, config.on_cpu, bound and config.on_cpu, options.norm_stats)
    for known in (planned.inferred, True):
        try:
            planned = planned.with_shapes() if known else planned
            return lump(
                planned.model, planned.decisions, planned.specs, planned.name, target, options.seed, known, fixed,
                parts,
            )  # fmt: skip
        except ShapesMissing:
            continue
    raise AssertionError("inference ran, and shapes that it does not find are no reason to ask for it")


class Runs(Protocol):
    """What runs a graph for the constants of one run; `Engine` does."""

    seconds: dict[str, float]

    def run(
        self,
        weight: Array,
        feeds: Mapping[str, Array],
        outputs: Sequence[str],
        batch_axes: Mapping[str, int] | None = None,
    ) -> dict[str, Array]:
        """Return values by name; batch_axes: where samples are run one by one."""


Evaluate: TypeAlias = Callable[[LumpedModel, Mapping[str, Lumped]], Runs]
"""Makes what runs a lumped graph instead of ONNX Runtime, once it is known to fit in memory."""


class LumpedExecutor:
    """The lumped graph: all constants in one run where it allows that, else one run of one session for each."""

    lumped = True

    def __init__(
        self, lowered: LumpedModel, planned: ModelPlan, config: ExecutionConfig, evaluate: Evaluate | None = None
    ) -> None:
        if evaluate is None:
            refuse_if_too_large(lowered.peak_bytes(), planned.name, config.jobs)
        self._lowered = lowered
        self._names = list(planned.outputs)
        self._fetched: dict[str, Lumped] = dict(lowered.outputs)
        for index, pair in enumerate(lowered.observed):
            self._fetched |= {f"epsinas.mean.{index}": pair[0], f"epsinas.variance.{index}": pair[1]}
        self._guards = {f"epsinas.guard.{index}": guard for index, guard in enumerate(lowered.context.guards)}
        self._fetched |= self._guards
        self._engine: Runs
        if evaluate is not None:
            self._engine = evaluate(lowered, self._fetched)
        else:
            self._engine = Engine(
                lambda weight: lowered.to_proto(self._fetched, weight if lowered.bound else None),
                planned.name, config.providers, config.threads, lowered.bound, CHEAPEST if config.on_cpu else (),
            )  # fmt: skip
        self.together = lowered.constants > 1
        self.seconds = self._engine.seconds

    def run(
        self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> list[ForwardResult]:
        """Return what each constant gives."""
        size = self._lowered.constants
        feeds = self._lowered.fed(feeds)
        results = []
        for start in range(0, len(constants), size):
            group = np.asarray(constants[start : start + size], np.float32)
            full = np.pad(group, (0, size - len(group)), "edge")  # the graph is made for so many
            got = self._engine.run(full, feeds, list(self._fetched), axes)
            results += self._results(got, axes is not None)[: len(group)]
        return results

    def _results(self, got: Mapping[str, Array], stacked: bool) -> list[ForwardResult]:
        rows = {name: self._split(value, got[name], stacked) for name, value in self._fetched.items()}
        pairs = [(f"epsinas.mean.{index}", f"epsinas.variance.{index}") for index in range(len(self._lowered.observed))]
        results = []
        for constant in range(self._lowered.constants):
            output = np.concatenate([rows[name][constant].reshape(-1) for name in self._names])
            if not all(np.isfinite(rows[name][constant]).all() for name in self._guards):
                output = np.full_like(output, np.nan)
            channel_stats = [(rows[mean][constant], rows[variance][constant]) for mean, variance in pairs]
            results.append(ForwardResult(output, channel_stats))
        return results

    def _split(self, value: Lumped, array: Array, stacked: bool) -> list[Array]:
        if not stacked:
            return self._lowered.split(value, array)
        samples = [self._lowered.split(value, sample) for sample in array]
        return [np.stack(column) for column in zip(*samples, strict=True)]


class PlainExecutor:
    """The plain graph, one run for each constant."""

    lumped = False
    together = False

    def __init__(self, planned: ModelPlan, config: ExecutionConfig) -> None:
        self._graph = plain_graph(planned)
        refuse_if_too_large(peak_bytes(self._graph.model), planned.name, config.jobs)
        replaced = {(use.node, use.slot) for use in planned.decisions.uses if use.role is not Role.CONSTANT}
        refuse_large_constants(planned.model, replaced, planned.name)
        self.cut_off = unreachable(self._graph.model, planned.outputs)
        self._engine = plain_engine(self._graph.model, planned.name, config)
        self.seconds = self._engine.seconds

    def run(
        self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None
    ) -> list[ForwardResult]:
        """Return what each constant gives."""
        pairs = self._graph.statistics
        names = [*self._graph.outputs, *(name for pair in pairs for name in pair)]
        results = []
        for constant in constants:
            got = self._engine.run(np.asarray(constant, np.float32), feeds, names, axes)
            output = np.concatenate([got[name].reshape(-1) for name in self._graph.outputs])
            results.append(ForwardResult(output, [(got[mean], got[variance]) for mean, variance in pairs]))
        return results


def plain_engine(model: ir.Model, name: str, config: ExecutionConfig) -> Engine:
    """Return an engine for a plainly rewritten model; on the CPU it stores each constant in the graph."""
    proto = to_proto(model, name)
    binds = config.on_cpu
    return Engine(
        lambda weight: bind_constant(proto, weight) if binds else proto, name, config.providers, config.threads, binds
    )


class TracedExecutor:
    """A few samples with any constant, and every value of the user's graph to look at.

    The lumped graph where there is one: its classes hold all values that the whole tensors do. `lumped` has them as
    it holds them, by name; it is empty where there is none.
    """

    def __init__(self, planned: ModelPlan, config: ExecutionConfig, lumped: bool, given: Feeds) -> None:
        self._lowered = lower(planned, config, 1, bound=False, feeds=given) if lumped else None
        self.lumped: Mapping[str, Lumped] = {}
        if self._lowered is None:
            model = plain_graph(planned).model
            exposed = expose(model, planned.outputs)
            self._engine = plain_engine(model, planned.name, config)
            self.tracer = Tracer(model, planned.outputs, exposed)
        else:
            lowered = self._lowered
            self.lumped = lowered.exposed(planned.outputs)
            sizes = {name: lowered.context.canonical(value).elements * 4 for name, value in self.lumped.items()}
            self._engine = Engine(
                lambda _: lowered.to_proto(self.lumped, None),
                planned.name,
                config.providers,
                config.threads,
                False,
                small=True,
            )
            self.tracer = Tracer(planned.model, planned.outputs, sizes)
        self._outputs = planned.outputs

    def values(
        self, constant: float, feeds: Mapping[str, Array], names: Sequence[str], axes: Mapping[str, int] | None
    ) -> dict[str, Array]:
        """Return values of the user's graph by name, whole or as representatives of classes."""
        shape = () if self._lowered is None else (1,)
        feeds = feeds if self._lowered is None else self._lowered.fed(feeds)
        return self._engine.run(np.full(shape, constant, np.float32), feeds, names, axes)

    def entries_of(self, name: str, array: Array) -> Array:
        """Return what the metric takes of a value that `values` gave, each class as often as it counts."""
        if self._lowered is None:
            return array.reshape(-1)
        (row,) = self._lowered.split(self.lumped[name], array)
        return row.reshape(-1)

    def output(self, constant: float, feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> Array:
        """Return the compared values, flattened together."""
        got = self.values(constant, feeds, self._outputs, axes)
        return np.concatenate([got[name].reshape(-1) for name in self._outputs])
