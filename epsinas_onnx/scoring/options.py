"""Everything that a score depends on beside the model, checked once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, get_args

import numpy as np

from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.analysis.folded_norms import AUTO
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.graph.passes.constant_weights import NORM_STATS, NormStats
from epsinas_onnx.graph.passes.restore_norms import check_which
from epsinas_onnx.inputs.given import given_names

ProviderName: TypeAlias = Literal["auto", "cpu", "cuda", "tensorrt"]
"""Where graphs run; `auto` is CUDA where it is there."""
ElementType: TypeAlias = Literal["float32", "model"]
"""What graphs compute in: float32, which the metric is defined in, or the model's own float types."""

Arithmetic: TypeAlias = Literal["auto", "exact", "float32"]
"""What the formula is computed in: `float32` is the published procedure, `exact` has no range, and `auto` is exact
wherever that can be computed."""

DEFAULT_WEIGHTS = (1e-7, 1.0)
DEFAULT_BATCH = 256
DEFAULT_PROXY_BATCH = 32


def check_constant(constant: float) -> None:
    """Raise UsageError for a constant that float32, which the weights are fed in whatever the model's type, lacks."""
    with np.errstate(over="ignore", under="ignore"):
        held = np.float32(constant)
    if not np.isfinite(held):
        raise UsageError(f"the constant {constant:g} is beyond float32, or no number at all; give a finite one")
    if held == 0 != constant:
        smallest = float(np.finfo(np.float32).smallest_subnormal)
        raise UsageError(
            f"the constant {constant:g} is 0 in float32, whose smallest number above 0 is {smallest:.2g}; give a "
            f"larger one"
        )


def check_choices(norm_stats: str, dtype: str, roles: Mapping[str, str]) -> None:
    """Raise UsageError for statistics, an element type or a role that does not exist."""
    if norm_stats not in NORM_STATS:
        raise UsageError(f"there are no {norm_stats!r} statistics; choose one of {', '.join(NORM_STATS)}")
    if dtype not in get_args(ElementType):
        raise UsageError(f"the element type is float32 or model (the model's own), not {dtype!r}")
    for role in roles.values():
        if role not in set(Role):
            raise UsageError(f"there is no role {role!r}; the roles are {', '.join(Role)}")


@dataclass(frozen=True)
class GraphOptions:
    """What decides the planned graph, the minibatch size aside.

    outputs: names of the values that are compared, empty for the first float output; None keeps all outputs.
    attempt: which default size to take for dimensions that nobody named. loosen: whether a batch fixed to 1 is
    loosened. native_types: whether the graph keeps its own float types instead of float32. restore: behind which
    layers a BatchNormalization is put back. allow_custom: whether operators that ONNX Runtime does not know may stand.
    """

    shapes: Shapes = field(default_factory=dict)
    outputs: tuple[str, ...] | None = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    norm_stats: NormStats = "batch"
    seed: int = 0
    attempt: int = 0
    loosen: bool = False
    native_types: bool = False
    restore: str = AUTO
    allow_custom: bool = False


@dataclass(frozen=True)
class ScoreOptions:
    """Everything that `score` takes beside the model, checked; picklable, so that a worker process can take it.

    Attributes:
        weights: the two constants, as floats.
        inputs: a kind of input, arrays, or where they are.
        batch: samples in the minibatch, at least 2.
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        outputs: names of the values to compare; empty for the first float output.
        roles: pattern to role.
        norm_stats: `batch`, `reset` or `stored`.
        lump: whether identical channels are computed once.
        providers: `cpu`, `cuda`, `tensorrt` or `auto`.
        seed: of random inputs and of embedding tables.
        dtype: `float32` or `model`.
        threads: intra-op threads, 0 for one a core.
        jobs: how many worker processes share the machine's memory and cores.
        restore_batchnorm: `auto`, `none`, `all`, or a glob over node names.
        arithmetic: `auto`, `exact` or `float32`.
        proxies: names of other training-free scores that are computed too.
        proxy_batch: samples that they see, at least 2.
        device_memory: GB that all workers may take of a GPU's memory together, 0 for no limit.
        alike: whether models of a batch that compute the same are looked for, and run once.
    """

    weights: tuple[float, float] = DEFAULT_WEIGHTS
    inputs: Any = "auto"
    batch: int = DEFAULT_BATCH
    shapes: Shapes = field(default_factory=dict)
    outputs: tuple[str, ...] = ()
    roles: Mapping[str, str] = field(default_factory=dict)
    norm_stats: NormStats = "batch"
    lump: bool = True
    providers: ProviderName = "auto"
    seed: int = 0
    dtype: ElementType = "float32"
    threads: int = 0
    jobs: int = 1
    restore_batchnorm: str = AUTO
    arithmetic: Arithmetic = "auto"
    proxies: tuple[str, ...] = ()
    proxy_batch: int = DEFAULT_PROXY_BATCH
    device_memory: float = 0.0
    alike: bool = True

    def __post_init__(self) -> None:
        try:
            first, second = (float(weight) for weight in self.weights)
        except (TypeError, ValueError):
            raise UsageError(f"weights are two numbers, such as 1e-7,1, not {self.weights!r}") from None
        for constant in (first, second):
            check_constant(constant)
        if np.float32(first) == np.float32(second):
            raise UsageError(
                f"the constants {first:g} and {second:g} are equal in float32, so the two outputs cannot differ; "
                f"give two different ones"
            )
        if self.batch < 2:
            raise UsageError(f"a minibatch of {self.batch} has nothing to compare; give at least 2 samples")
        if self.proxy_batch < 2:
            raise UsageError(
                f"a minibatch of {self.proxy_batch} has nothing to compare; give other scores at least 2 samples"
            )
        if not 0 <= self.device_memory < math.inf:
            raise UsageError(f"device memory is a number of GB, 0 for no limit, not {self.device_memory!r}")
        check_seed(self.seed)
        check_choices(self.norm_stats, self.dtype, self.roles)
        self._check_arithmetic()
        check_which(self.restore_batchnorm)
        object.__setattr__(self, "weights", (first, second))

    def _check_arithmetic(self) -> None:
        if self.arithmetic not in get_args(Arithmetic):
            raise UsageError(f"the arithmetic is one of {', '.join(get_args(Arithmetic))}, not {self.arithmetic!r}")
        if self.arithmetic != "exact":
            return
        if self.providers not in ("auto", "cpu"):
            raise UsageError(f"exact arithmetic runs on the CPU, not on {self.providers}; leave out one of the two")
        if not self.lump:
            raise UsageError("exact arithmetic runs the lumped graph, so it cannot do without lumping")
        if self.dtype != "float32":
            raise UsageError("exact arithmetic does not round to the model's own float types; leave out one of the two")

    @property
    def device_share(self) -> float:
        """Return GB that one of the worker processes may take of a GPU's memory, 0 for no limit."""
        return self.device_memory / self.jobs

    @property
    def named_inputs(self) -> frozenset[str]:
        """The inputs that the user named, and which are fed whatever they look like."""
        return given_names(self.inputs).union(self.shapes)

    def graph_options(self, *, shapes: Shapes | None = None, attempt: int = 0) -> GraphOptions:
        """Return what these options decide of the graph that is scored; shapes: those of given arrays."""
        return GraphOptions(
            {**self.shapes, **(shapes or {})}, self.outputs, self.roles, self.norm_stats, self.seed, attempt,
            native_types=self.dtype == "model", restore=self.restore_batchnorm,
        )  # fmt: skip

    def whole_graph(self, *, allow_custom: bool = True) -> GraphOptions:
        """Return the same for a graph that is described or written, with all its outputs."""
        return dataclasses.replace(self.graph_options(), outputs=None, allow_custom=allow_custom)


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed that no generator takes."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise UsageError(f"a seed is a whole number from 0 on, not {seed!r}")


class ScoreKeywords(TypedDict, total=False):
    """The keyword arguments of `score`, which says what each means."""

    weights: tuple[float, float] | Literal["auto"]
    inputs: Any
    batch: int
    shapes: Shapes | None
    outputs: str | Sequence[str] | None
    roles: Mapping[str, str] | None
    norm_stats: NormStats
    lump: bool
    providers: ProviderName
    seed: int
    dtype: ElementType
    threads: int
    restore_batchnorm: str
    arithmetic: Arithmetic
    scores: str | Sequence[str]
    proxy_batch: int
    device_memory: float


def score_options(*, jobs: int = 1, **keywords: Unpack[ScoreKeywords]) -> ScoreOptions:
    """Return checked options from the keyword arguments of `score`; raises UsageError where they are wrong."""
    given: dict[str, Any] = dict(keywords)
    for key in ("shapes", "roles"):
        given[key] = dict(given.get(key) or {})
    outputs = given.pop("outputs", None)
    scores = given.pop("scores", ())
    return ScoreOptions(outputs=_names(outputs), proxies=_names(scores), jobs=jobs, **given)


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())
