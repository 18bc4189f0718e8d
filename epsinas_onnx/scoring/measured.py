"""The other training-free scores of a model that is scored: which are asked for, each with a status, whatever fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from epsinas_onnx._util.text import first_names
from epsinas_onnx.errors import EpsinasError, ModelError, UsageError
from epsinas_onnx.graph.load import Buildable, ModelSource, source_name
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.scoring.options import ScoreOptions

if TYPE_CHECKING:
    import onnx_ir as ir

Measure: TypeAlias = Callable[..., Sequence[Measurement]]
"""`epsinas_onnx.proxies.measure.measure`, or what stands in for it."""

ALL = "all"
"""The name of every score there is."""

_EPSINAS_ALONE = frozenset({"auto", "grey"})
"""Kinds of input that epsinas is defined with, and other scores aren't: they have a default of their own."""


def known_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of other scores, each once, `all` in full; raises UsageError for one that does not exist."""
    if not names:
        return ()
    from epsinas_onnx.proxies import registry

    known = registry.names()
    found = [one for name in names for one in (known if name == ALL else (name,))]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise UsageError(f"there is no score {first_names(unknown)}; the scores are {', '.join(known)}, or {ALL}")
    return tuple(dict.fromkeys(found))


def measurements(
    source: ModelSource, options: ScoreOptions, measure: Measure | None = None
) -> Mapping[str, Measurement]:
    """Return the scores that `options` name, of a model; whatever fails costs those that it keeps from a number.

    Raises UsageError for wrong options.
    """
    names = options.proxies if measure is not None else known_scores(options.proxies)
    run = measure if measure is not None else _measure()
    started = time.perf_counter()
    # Given arrays and folders are fed as they are; kinds of input are what a score says it is defined with.
    inputs = "auto" if is_kind(options.inputs) and options.inputs in _EPSINAS_ALONE else options.inputs
    try:
        found = run(
            source, names, batch=options.proxy_batch, inputs=inputs, seed=options.seed, shapes=options.shapes,
            roles=options.roles, threads=1 if options.jobs > 1 else options.threads,
        )  # fmt: skip
    except ModelError as error:
        return unmeasured(names, str(error), time.perf_counter() - started)
    except EpsinasError:
        raise
    except MemoryError:
        reason = f"{source_name(source)}: needs more memory than there is; try a smaller --proxy-batch or --shape"
        return unmeasured(names, reason, time.perf_counter() - started)
    except Exception as error:  # whatever a foreign file provokes costs these scores, never the model's own
        text = " ".join(str(error).split()) or type(error).__name__
        reason = f"{source_name(source)}: unexpected {type(error).__name__}: {text}; please report this file"
        return unmeasured(names, reason, time.perf_counter() - started)
    return {one.name: one for one in found}


def _measure() -> Measure:
    from epsinas_onnx.proxies import measure

    return measure.measure


def unmeasured(names: Sequence[str], reason: str, seconds: float = 0.0) -> Mapping[str, Measurement]:
    """Return scores that all failed for one reason. seconds: what all took together."""
    each = seconds / max(len(names), 1)
    return {name: Measurement(name, None, MeasurementStatus.ERROR, reason, each) for name in names}


class BuiltOnce:
    """A network that is built when it is first asked for, and given again as a copy: several scores read one model."""

    def __init__(self, source: Buildable) -> None:
        self.name = source.name
        self._source = source
        self._model: ir.Model | None = None

    def build(self) -> ir.Model:
        """Return a copy of the network; raises what building it raises."""
        if self._model is None:
            self._model = self._source.build()
        return self._model.clone()


def read_twice(source: ModelSource) -> ModelSource:
    """Return a source that may be read twice, and costs what it takes to make the model once alone."""
    return BuiltOnce(source) if isinstance(source, Buildable) else source
