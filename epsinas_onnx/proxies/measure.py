"""Measures the training-free scores of one model: prepared once, run once, each score with its own status."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.text import unexpected
from epsinas_onnx.errors import ModelError, UnsupportedError, UsageError
from epsinas_onnx.graph.analysis.folded_norms import AUTO
from epsinas_onnx.graph.analysis.shapes import Shapes
from epsinas_onnx.graph.load import LoadedModel, ModelSource, source_name
from epsinas_onnx.proxies.measurement import Measurement, MeasurementStatus
from epsinas_onnx.proxies.prepared import DEFAULT_BATCH, Prepared, prepare
from epsinas_onnx.proxies.proxy import Array, Proxy, UndefinedError
from epsinas_onnx.proxies.registry import find_proxies
from epsinas_onnx.scoring.options import ProviderName


def measure(
    source: ModelSource | LoadedModel,
    names: str | Sequence[str] | None = None,
    *,
    batch: int = DEFAULT_BATCH,
    inputs: Any = "normal",
    seed: int = 0,
    repeats: int = 1,
    shapes: Shapes | None = None,
    outputs: str | Sequence[str] | None = None,
    roles: Mapping[str, str] | None = None,
    restore_batchnorm: str = AUTO,
    threads: int = 0,
    providers: ProviderName = "auto",
    device_memory: float = 0.0,
) -> tuple[Measurement, ...]:
    """Measure training-free scores of one model, without reading its weights.

    Args:
        source: a path, the file's bytes, an `onnx.ModelProto`, an `onnx_ir.Model`, or a model that is loaded; it is not
            modified.
        names: of scores, as in the registry; all of them unless given.
        batch: samples in the minibatch, at least 2, 32 unless given; given arrays decide it.
        inputs: `normal`, or what else `score` takes.
        seed: of random inputs and of the weights, which are drawn by role.
        repeats: over how many seeds, from `seed` on, a score that depends on them is the mean.
        shapes: sizes of free dimensions by name, and whole shapes by input name.
        outputs: the value that is scored, the first where several are named; the first float output unless given.
        roles: pattern to role, as for `score`.
        restore_batchnorm: behind which layers a folded BatchNormalization is put back, as for `score`.
        threads: intra-op threads, 0 for one a core.
        providers: `cpu`, `cuda`, `tensorrt`, or `auto`.
        device_memory: GB that graphs may take of a GPU's memory, 0 for no limit.

    Returns:
        One Measurement for each name, in order; what keeps one score from being computed costs that one alone.

    Raises:
        UsageError: an argument is wrong, whatever the model.

    Examples:
        >>> for found in measure("models/nb201-p-c1-s-c1-s-s.onnx", ["params", "depth", "swap"], batch=8):
        ...     print(found.name, found.status, found.value)
        params ok 128721.0
        depth ok 21.0
        swap ok 256.0
    """
    if not isinstance(repeats, int) or repeats < 1:
        raise UsageError(f"a score is the mean over at least 1 seed, not {repeats!r}")
    proxies = find_proxies(names)
    last = len(proxies) == 1 and repeats == 1 and proxies[0].plans_once
    with collection_paused():
        try:
            prepared = prepare(
                source, batch=batch, inputs=inputs, seed=seed, shapes=shapes, outputs=outputs, roles=roles,
                restore_batchnorm=restore_batchnorm, threads=threads, providers=providers,
                device_memory=device_memory, last=last,
            )  # fmt: skip
            if len(proxies) > 1:
                _ = prepared.planned  # what cannot be planned is so for all of them
        except UsageError:
            raise
        except Exception as error:
            called = source.name if isinstance(source, LoadedModel) else source_name(source)
            return tuple(_failed(proxy.name, error, 0.0, called) for proxy in proxies)
        return measure_prepared(prepared, proxies, repeats)


def measure_prepared(prepared: Prepared, proxies: Sequence[type[Proxy]], repeats: int = 1) -> tuple[Measurement, ...]:
    """Measure scores of a model that is prepared; see `measure`."""
    rounds: list[dict[str, Measurement]] = []
    for number in range(repeats):
        seeded = prepared.with_seed(prepared.seed + number) if number else prepared
        rounds.append(_once(seeded, [proxy for proxy in proxies if proxy.seeded or not number]))
    return tuple(_mean([done[proxy.name] for done in rounds if proxy.name in done]) for proxy in proxies)


def _once(prepared: Prepared, proxies: Sequence[type[Proxy]]) -> dict[str, Measurement]:
    """Measure each score for one seed: one session for what all of them ask for."""
    found: dict[str, Measurement] = {}
    asked: dict[Proxy, Sequence[str]] = {}
    seconds: dict[Proxy, float] = {}
    for kind in proxies:
        proxy, started = kind(), time.perf_counter()
        try:
            asked[proxy] = proxy.ask(prepared)
            if asked[proxy]:
                prepared.check_minibatch()
        except UsageError:
            raise
        except Exception as error:
            if "emitter" in vars(prepared):
                prepared.emitter.take()  # what it had not appended yet
            asked.pop(proxy, None)
            found[proxy.name] = _failed(proxy.name, error, time.perf_counter() - started, prepared.name)
        seconds[proxy] = time.perf_counter() - started
    together = list(dict.fromkeys(name for names in asked.values() for name in names))
    fetched: Mapping[str, Array] = {}
    failure: Exception | None = None
    if together:
        try:
            fetched = prepared.run(together)
        except UsageError:
            raise
        except Exception as error:
            failure = error
    runners = sum(1 for names in asked.values() if names)
    for proxy, names in asked.items():
        if failure is None or not names:
            found[proxy.name] = _valued(proxy, prepared, fetched, seconds[proxy])
        elif runners == 1:
            found[proxy.name] = _failed(proxy.name, failure, seconds[proxy], prepared.name)
        else:
            found[proxy.name] = _alone(type(proxy), prepared)
    return found


def _alone(kind: type[Proxy], prepared: Prepared) -> Measurement:
    """Measure one score in a graph and a session of its own, since what all ask for together cannot be run."""
    proxy, prepared, started = kind(), prepared.fresh(), time.perf_counter()

    def fetch() -> Mapping[str, Array]:
        names = proxy.ask(prepared)
        return prepared.run(names) if names else {}

    return _guarded(proxy.name, prepared, lambda: proxy.value(prepared, fetch()), started)


def _valued(proxy: Proxy, prepared: Prepared, fetched: Mapping[str, Array], before: float) -> Measurement:
    """Return the number of a score out of what was fetched; before: seconds that asking took."""
    started = time.perf_counter() - before
    return _guarded(proxy.name, prepared, lambda: proxy.value(prepared, fetched), started)


def _guarded(name: str, prepared: Prepared, value: Callable[[], float], started: float) -> Measurement:
    try:
        number = float(value())
    except UsageError:
        raise
    except Exception as error:  # whatever a foreign file provokes costs this score alone
        return _failed(name, error, time.perf_counter() - started, prepared.name)
    seconds = time.perf_counter() - started
    if math.isfinite(number):
        return Measurement(name, number, seconds=seconds)
    reason = f"{prepared.name}: the formula gives {number}, which is no finite number"
    return Measurement(name, None, MeasurementStatus.UNDEFINED, reason, seconds)


def _failed(name: str, error: Exception, seconds: float, model: str) -> Measurement:
    match error:
        case UndefinedError():
            status = MeasurementStatus.UNDEFINED
        case UnsupportedError():
            status = MeasurementStatus.UNSUPPORTED
        case _:
            status = MeasurementStatus.ERROR
    return Measurement(name, None, status, _reason(error, model), seconds)


def _reason(error: Exception, model: str) -> str:
    if isinstance(error, (ModelError, UndefinedError)):
        return str(error)
    if isinstance(error, MemoryError):
        return f"{model}: needs more memory than there is; try a smaller batch or smaller shapes"
    return unexpected(model, error)


def _mean(rounds: Sequence[Measurement]) -> Measurement:
    """Return the mean over seeds; the first that gave no number where one of them gave none."""
    seconds = sum(done.seconds for done in rounds)
    first = next((done for done in rounds if done.value is None), None)
    if first is not None:
        return Measurement(first.name, None, first.status, first.reason, seconds)
    values = [done.value for done in rounds if done.value is not None]
    return Measurement(rounds[0].name, math.fsum(values) / len(values), seconds=seconds)
