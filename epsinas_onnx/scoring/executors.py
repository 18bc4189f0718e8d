"""Runs a decided model for some constants: the lumped graph for all of them at once, or the plain one for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from epsinas_onnx.lump.lower import LumpedModel, lump
from epsinas_onnx.lump.step import ShapesMissing, Target
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.lump.walk import Unlumpable
from epsinas_onnx.runtime.memory import peak_bytes, refuse_if_too_large
from epsinas_onnx.runtime.providers import CPU, Provider, provider_name
from epsinas_onnx.runtime.session import CHEAPEST, Engine, bind_constant, to_proto
from epsinas_onnx.scoring.diagnosis import Tracer, expose, unreachable
from epsinas_onnx.scoring.plan import Decided, rewrite_plainly

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Setting:
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
class Pass:
    """What one constant gave. output: the compared values, flattened together; of a lumped graph each class as often
    as it must count. deviations: mean and variance by channel of the batch normalisations that are watched.
    """

    output: Array
    deviations: Sequence[tuple[Array, Array]] = ()


class Execution(Protocol):
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

    def run(self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> list[Pass]:
        """Return a pass for each constant; axes: where the samples are cut apart, None to run them together."""


def prove(
    decided: Decided, setting: Setting, constants: int, fixed: Mapping[str, Array] | None = None
) -> LumpedModel | None:
    """Lower a decided model, whose `cut_off` says what the partitions prove; None where it cannot be lowered."""
    try:
        return lower(decided, setting, constants, fixed=fixed)
    except Unlumpable:
        return None


def lower(
    decided: Decided,
    setting: Setting,
    constants: int,
    bound: bool = True,
    fixed: Mapping[str, Array] | None = None,
) -> LumpedModel:
    """Return the lumped graph of a decided model for so many constants a run; fixed: inputs that are taken as given."""
    options = decided.options
    target = Target(constants, setting.on_cpu, bound and setting.on_cpu, options.norm_stats)
    for known in (decided.inferred, True):
        try:
            decided = decided.with_shapes() if known else decided
            return lump(
                decided.model, decided.decisions, decided.specs, decided.name, target, options.seed, known, fixed
            )
        except ShapesMissing:
            continue
    raise AssertionError("inference ran, and shapes that it does not find are no reason to ask for it")


class LumpedExecution:
    """The lumped graph: all constants in one run where it allows that, else one run of one session for each."""

    lumped = True

    def __init__(self, lowered: LumpedModel, decided: Decided, setting: Setting) -> None:
        refuse_if_too_large(lowered.peak_bytes(), decided.name, setting.jobs)
        self._lowered = lowered
        self._names = list(decided.outputs)
        self._fetched: dict[str, Lumped] = dict(lowered.outputs)
        for index, pair in enumerate(lowered.observed):
            self._fetched |= {f"epsinas.mean.{index}": pair[0], f"epsinas.variance.{index}": pair[1]}
        self._guards = {f"epsinas.guard.{index}": guard for index, guard in enumerate(lowered.context.guards)}
        self._fetched |= self._guards
        self._engine = Engine(
            lambda weight: lowered.to_proto(self._fetched, weight if lowered.bound else None),
            decided.name, setting.providers, setting.threads, lowered.bound, CHEAPEST if setting.on_cpu else (),
        )  # fmt: skip
        self.together = lowered.constants > 1
        self.seconds = self._engine.seconds

    def run(self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> list[Pass]:
        """Return a pass for each constant."""
        size = self._lowered.constants
        passes = []
        for start in range(0, len(constants), size):
            group = np.asarray(constants[start : start + size], np.float32)
            got = self._engine.run(group, feeds, list(self._fetched), axes)
            passes += self._passes(got, axes is not None)
        return passes

    def _passes(self, got: Mapping[str, Array], stacked: bool) -> list[Pass]:
        rows = {name: self._split(value, got[name], stacked) for name, value in self._fetched.items()}
        pairs = [(f"epsinas.mean.{index}", f"epsinas.variance.{index}") for index in range(len(self._lowered.observed))]
        passes = []
        for constant in range(self._lowered.constants):
            output = np.concatenate([rows[name][constant].reshape(-1) for name in self._names])
            if not all(np.isfinite(rows[name][constant]).all() for name in self._guards):
                output = np.full_like(output, np.nan)
            deviations = [(rows[mean][constant], rows[variance][constant]) for mean, variance in pairs]
            passes.append(Pass(output, deviations))
        return passes

    def _split(self, value: Lumped, array: Array, stacked: bool) -> list[Array]:
        if not stacked:
            return self._lowered.split(value, array)
        samples = [self._lowered.split(value, sample) for sample in array]
        return [np.stack(column) for column in zip(*samples, strict=True)]


class PlainExecution:
    """The plain graph, one run for each constant."""

    lumped = False
    together = False

    def __init__(self, decided: Decided, setting: Setting) -> None:
        self._prepared = rewrite_plainly(decided)
        refuse_if_too_large(peak_bytes(self._prepared.model), decided.name, setting.jobs)
        self.cut_off = unreachable(self._prepared.model, decided.outputs)
        self._engine = plain_engine(self._prepared.model, decided.name, setting)
        self.seconds = self._engine.seconds

    def run(self, constants: Sequence[float], feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> list[Pass]:
        """Return a pass for each constant."""
        pairs = self._prepared.statistics
        names = [*self._prepared.outputs, *(name for pair in pairs for name in pair)]
        passes = []
        for constant in constants:
            got = self._engine.run(np.asarray(constant, np.float32), feeds, names, axes)
            output = np.concatenate([got[name].reshape(-1) for name in self._prepared.outputs])
            passes.append(Pass(output, [(got[mean], got[variance]) for mean, variance in pairs]))
        return passes


def plain_engine(model: ir.Model, name: str, setting: Setting) -> Engine:
    """Return an engine for a plainly rewritten model; on the CPU it stores each constant in the graph."""
    proto = to_proto(model, name)
    binds = setting.on_cpu
    return Engine(
        lambda weight: bind_constant(proto, weight) if binds else proto, name, setting.providers, setting.threads, binds
    )


class TracedExecution:
    """A few samples with any constant, and every value of the user's graph to look at.

    The lumped graph where there is one: its classes hold all values that the whole tensors do.
    """

    def __init__(
        self, decided: Decided, setting: Setting, lumped: bool, fixed: Mapping[str, Array] | None = None
    ) -> None:
        self._lowered = lower(decided, setting, 1, bound=False, fixed=fixed) if lumped else None
        if self._lowered is None:
            model = rewrite_plainly(decided).model
            exposed = expose(model, decided.outputs)
            self._engine = plain_engine(model, decided.name, setting)
            self.tracer = Tracer(model, decided.outputs, exposed)
        else:
            lowered = self._lowered
            self._fetched = lowered.exposed(decided.outputs)
            sizes = {name: lowered.context.canonical(value).elements * 4 for name, value in self._fetched.items()}
            self._engine = Engine(
                lambda _: lowered.to_proto(self._fetched, None),
                decided.name,
                setting.providers,
                setting.threads,
                False,
                small=True,
            )
            self.tracer = Tracer(decided.model, decided.outputs, sizes)
        self._outputs = decided.outputs

    def values(
        self, constant: float, feeds: Mapping[str, Array], names: Sequence[str], axes: Mapping[str, int] | None
    ) -> dict[str, Array]:
        """Return values of the user's graph by name, whole or as representatives of classes."""
        shape = () if self._lowered is None else (1,)
        return self._engine.run(np.full(shape, constant, np.float32), feeds, names, axes)

    def output(self, constant: float, feeds: Mapping[str, Array], axes: Mapping[str, int] | None) -> Array:
        """Return the compared values, flattened together."""
        got = self.values(constant, feeds, self._outputs, axes)
        return np.concatenate([got[name].reshape(-1) for name in self._outputs])
