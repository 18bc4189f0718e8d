"""The other training-free scores of a model that is scored: which are asked for, each with a status, whatever fails."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from epsinas_onnx._util.text import first_names, unexpected
from epsinas_onnx.errors import ModelError, UsageError
from epsinas_onnx.graph.load import LoadedModel
from epsinas_onnx.inputs.minibatch import is_kind
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.scoring.options import ScoreOptions

ALL = "all"
"""The name of every score there is."""

_EPSINAS_ALONE = frozenset({"auto", "grey"})
"""Kinds of input that epsinas is defined with, and other scores aren't: they have a default of their own."""


def known_scores(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of other scores, each once, `all` in full; raises UsageError for one that does not exist."""
    if not names:
        return ()
    from epsinas_onnx.proxies.registry import proxy_names

    known = proxy_names()
    found = [one for name in names for one in (known if name == ALL else (name,))]
    unknown = [name for name in found if name not in known]
    if unknown:
        raise UsageError(f"there is no score {first_names(unknown)}; the scores are {', '.join(known)}, or {ALL}")
    return tuple(dict.fromkeys(found))


def measurements(load: Callable[[], LoadedModel], name: str, options: ScoreOptions) -> Mapping[str, Measurement]:
    """Return the scores that `options` name; whatever fails costs those that it keeps from a number.

    load: gives the model, which is not modified. name: what messages call it where it cannot be read.

    Raises UsageError for wrong options.
    """
    from epsinas_onnx.proxies.measure import measure

    names = known_scores(options.proxies)
    started = time.perf_counter()
    # Given arrays and folders are fed as they are; kinds of input are what a score says it is defined with.
    inputs = "normal" if is_kind(options.inputs) and options.inputs in _EPSINAS_ALONE else options.inputs
    try:
        found = measure(
            load(), names, batch=options.proxy_batch, inputs=inputs, seed=options.seed, shapes=options.shapes,
            outputs=options.outputs, roles=options.roles, restore_batchnorm=options.restore_batchnorm,
            threads=1 if options.jobs > 1 else options.threads, providers=options.providers,
            device_memory=options.device_share,
        )  # fmt: skip
    except ModelError as error:
        return unmeasured(names, str(error), time.perf_counter() - started)
    except UsageError:
        raise
    except MemoryError:
        reason = f"{name}: needs more memory than there is; try a smaller --proxy-batch or --shape"
        return unmeasured(names, reason, time.perf_counter() - started)
    except Exception as error:  # whatever a foreign file provokes costs these scores, never the model's own
        return unmeasured(names, unexpected(name, error), time.perf_counter() - started)
    return {one.name: one for one in found}


def unmeasured(names: Sequence[str], reason: str, seconds: float = 0.0) -> Mapping[str, Measurement]:
    """Return scores that all failed for one reason. seconds: what all took together."""
    each = seconds / max(len(names), 1)
    return {name: Measurement(name, None, MeasurementStatus.ERROR, reason, each) for name in names}
