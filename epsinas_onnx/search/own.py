"""Training-free objectives for a search of one's own: a function for `optuna.Study.optimize`, and one to call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from epsinas_onnx.errors import UsageError
from epsinas_onnx.graph.load import ModelSource
from epsinas_onnx.ranking.members import EPSINAS
from epsinas_onnx.search.latency import LatencySettings
from epsinas_onnx.search.measuring import Measured, Meter
from epsinas_onnx.search.optuna_samplers import chosen
from epsinas_onnx.search.quantities import Kind, parse_constraint, parse_objectives
from epsinas_onnx.search.reference import Reference
from epsinas_onnx.search.samples import drawn, scored
from epsinas_onnx.search.storage import optuna_module
from epsinas_onnx.search.strategy import found_space

if TYPE_CHECKING:
    import optuna

    from epsinas_exporters.spaces import SearchSpace


def objective(
    source: SearchSpace | str | Callable[[optuna.Trial], ModelSource], objectives: str | Sequence[str] = EPSINAS, *,
    constraints: Sequence[str] = (), latency: LatencySettings | None = None, arithmetic: str = "float32",
    reference: int = 200, **options: Any,
) -> Callable[[optuna.Trial], float | tuple[float, ...]]:  # fmt: skip
    """Return an objective for `optuna.Study.optimize` that scores without training.

    Args:
        source: a search space that has decisions, or the name of an installed one; or a function that suggests with an
            Optuna trial and returns a model: whatever `score` takes.
        objectives: one or several, in the order of the study's directions: `epsinas`, any score that `rank` knows,
            `params`, `macs`, `latency` (milliseconds) or `size` (bytes); of a space its combinations too.
        constraints: bounds such as `params<=1e6`, which are the trial's constraints.
        latency: what latencies are measured with.
        arithmetic: as for `Search`.
        reference: how many networks of the space ranks are taken among.
        options: keyword arguments of `score`; of the space unless given.

    Returns:
        A function of an Optuna trial. It returns the values; a network without them is pruned, and the trial's
        attributes `status` and `reason` say why. The attributes `arch` and `values` hold what was tried, and every
        number.

    Raises:
        UsageError: something does not exist.
    """
    trials = optuna_module()
    space = None if callable(source) else found_space(source)
    if space is not None and space.decisions() is None:
        raise UsageError(
            f"{space.name} has no list of decisions to suggest; search it with Search, or write a function"
        )
    wanted = parse_objectives(objectives)
    bounds = tuple(parse_constraint(text) for text in constraints)
    quantities = [*(one.quantity for one in wanted), *(one.quantity for one in bounds)]
    meter = _meter(space, quantities, latency, arithmetic, options)
    known: dict[str, Measured] = {}

    def value(trial: optuna.Trial) -> float | tuple[float, ...]:
        if space is None:
            assert callable(source)
            measured = meter.measure(None, source(trial))
        else:
            try:
                arch = chosen(trial, space)
            except ValueError as error:
                trial.set_user_attr("status", "invalid")
                raise trials.TrialPruned(str(error)) from None
            trial.set_user_attr("arch", arch)
            if arch not in known:
                _references(meter, space, reference)
                known[arch] = meter.measure(arch, space.network(arch))
            measured = known[arch]
        trial.set_user_attr("values", dict(measured.values))
        trial.set_user_attr("status", measured.status)
        if measured.status != "ok":
            trial.set_user_attr("reason", measured.reason)
            raise trials.TrialPruned(measured.reason)
        for bound in bounds:
            trial.set_constraint(bound.text, bound.violation(measured.values[bound.quantity.name]))
        found = tuple(measured.values[one.quantity.name] for one in wanted)
        return found[0] if len(found) == 1 else found

    return value


def scorer(
    space: SearchSpace | str | None = None, quantity: str = EPSINAS, *, latency: LatencySettings | None = None,
    arithmetic: str = "float32", reference: int = 200, scores: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Callable[[Any], float | None]:  # fmt: skip
    """Return a function that gives one number of an architecture, or of a model, without training.

    Args:
        space: a search space or the name of an installed one, whose architectures the function takes; None for a
            function of models.
        quantity: `epsinas`, any score or, of a space, combination that `rank` knows, `params`, `macs`, `latency`
            (milliseconds) or `size` (bytes).
        latency: what a latency is measured with.
        arithmetic: as for `Search`.
        reference: how many networks of the space ranks are taken among.
        scores: records of `Score.to_dict()` by architecture, which are not computed again.
        options: keyword arguments of `score`; of the space unless given.

    Returns:
        A function whose result is None where there is no number. What was computed is kept.

    Raises:
        UsageError: something does not exist.
    """
    found = None if space is None else found_space(space)
    [wanted] = parse_objectives(quantity)
    name = wanted.quantity.name
    meter = _meter(found, [wanted.quantity], latency, arithmetic, options)
    known: dict[str, float | None] = {}

    def number(arch: Any) -> float | None:
        if found is None:
            return meter.measure(None, arch).values.get(name)
        key = found.parse(arch)
        if key not in known:
            _references(meter, found, reference)
            known[key] = meter.measure(key, found.network(key), (scores or {}).get(key)).values.get(name)
        return known[key]

    return number


def _meter(
    space: SearchSpace | None,
    quantities: Sequence[Any],
    latency: LatencySettings | None,
    arithmetic: str,
    options: dict[str, Any],
) -> Meter:
    if space is None and any(one.kind is Kind.RANK for one in quantities):
        raise UsageError("a combination is a rank among networks of a space, and a function of models has none")
    defaults = (
        {}
        if space is None
        else {"weights": space.defaults.weights, "inputs": space.defaults.input, "batch": space.defaults.batch}
    )
    return Meter(quantities, latency=latency, arithmetic=arithmetic, **{**defaults, **options})


def _references(meter: Meter, space: SearchSpace, count: int) -> None:
    """Score the sample that ranks are taken among, once."""
    records: dict[str, Mapping[str, Any]] = {}
    for quantity in meter.quantities:
        if quantity.kind is Kind.RANK and quantity.name not in meter.references:
            archs = drawn(space, count, int(meter.options.get("seed", 0)))
            for _ in scored(archs, quantity.members, space, meter, records):
                pass
            meter.references[quantity.name] = Reference.of_records(
                quantity.members, [meter.seen(records[a]) for a in archs]
            )
