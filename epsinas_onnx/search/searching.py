"""A search as a whole: `Search` proposes architectures, takes what they are worth, and goes on where it was cut off."""

from __future__ import annotations

import contextlib
import math
import random
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from epsinas_onnx.errors import UsageError
from epsinas_onnx.ranking.members import EPSINAS
from epsinas_onnx.scoring.api import score_as_done
from epsinas_onnx.search import storage as stores
from epsinas_onnx.search.evolution import AgeingEvolution, RandomSearch
from epsinas_onnx.search.latency import LatencySettings
from epsinas_onnx.search.measuring import PARAMS, Measured, Meter
from epsinas_onnx.search.optuna_samplers import OWN, chosen, make_sampler
from epsinas_onnx.search.quantities import (
    Kind,
    Objective,
    parse_constraint,
    parse_guide,
    parse_objectives,
)
from epsinas_onnx.search.results import SearchResult, Tried
from epsinas_onnx.search.samples import References, Warmup, lacks
from epsinas_onnx.search.strategy import Strategy, found_space
from epsinas_onnx.search.trials import INVALID, Trials, tried

if TYPE_CHECKING:
    import os

    import optuna

    from epsinas_exporters.spaces import SearchSpace

Record = Mapping[str, Any]
_MOMENT = 0.1  # seconds between two looks at what others do
_MOST_INVALID = 1000
"""How many suggestions in a row may be no architecture."""


@dataclass(frozen=True)
class Proposal:
    """An architecture to try. number: of its trial in the study."""

    number: int
    arch: str
    trial: optuna.Trial = field(repr=False, compare=False)


class Search:
    """A search over a space, kept as an Optuna study; a context manager, which ends what it started.

    Args:
        space: a search space, or the name of an installed one.
        objectives: one or several, each `NAME`, `NAME:max` or `NAME:min`: `epsinas`, any score or combination that
            `rank` knows, `params`, `macs`, `latency` (milliseconds), `size` (bytes), or a name out of `own`.
        strategy: how it searches; the name of a sampler for one with the settings that it has unless given.
        constraints: bounds such as `params<=1e6`.
        own: further quantities by name, each a function of an architecture, or None for those that `tell` is given.
        storage: an Optuna storage as a path or URL; in memory where there is none.
        study: what it is called there; the name of the space unless given.
        scores: records of `Score.to_dict()` by architecture, which are not computed again.
        latency: what latencies are measured with.
        arithmetic: `float32` takes numbers of epsinas that the published procedure has alone, which lie on one scale;
            `auto` and `exact` as for `score`.
        minimised: names out of `own` that are to be small.
        options: keyword arguments of `score_many`; of the space unless given.

    Raises:
        UsageError: something does not exist, or the study was begun with other settings.
    """

    def __init__(
        self, space: SearchSpace | str, objectives: str | Sequence[str] = EPSINAS, *,
        strategy: Strategy | str = "evolution", constraints: Sequence[str] = (),
        own: Mapping[str, Callable[[str], float | None] | None] | None = None,
        storage: str | os.PathLike[str] | None = None, study: str | None = None,
        scores: Mapping[str, Record] | None = None, latency: LatencySettings | None = None,
        arithmetic: str = "float32", minimised: Sequence[str] = (), **options: Any,
    ) -> None:  # fmt: skip
        stores.optuna_module()
        self.space = found_space(space)
        own = own or {}
        self.strategy = Strategy(sampler=strategy) if isinstance(strategy, str) else strategy
        self.objectives = parse_objectives(objectives, own, minimised)
        self.constraints = tuple(parse_constraint(text, own) for text in constraints)
        self.guide = self._guide()
        asked = [*(one.quantity for one in self.objectives), *(one.quantity for one in self.constraints)]
        defaults = self.space.defaults
        given = {
            "weights": defaults.weights,
            "inputs": defaults.input,
            "batch": defaults.batch,
            "seed": self.strategy.seed,
        }
        self.meter = Meter(asked, own=own, latency=latency, arithmetic=arithmetic, **{**given, **options})
        guides = [] if self.guide is None else [self.guide.quantity]
        self.scores: dict[str, Record] = dict(scores or {})
        self._own_sampler = self.strategy.sampler in OWN
        if not self._own_sampler:
            make_sampler(self.strategy.sampler, 0, self.space, len(self.objectives))
        self._storage = stores.open_storage(storage)
        weakref.finalize(self, stores.close_storage, self._storage)  # who asks may never close it
        self.settings = self._settings(arithmetic)
        self.study = stores.open_study(
            self._storage, study or self.space.name, [one.minimised for one in self.objectives], self.settings
        )
        stores.end_left(self.study)
        self._trials = Trials(self.study, self.objectives)
        self._process = stores.this_process()
        self._samplers = 0
        self._references = References(self.space, self.strategy, self.meter, self.scores, self.study)
        self._warmup = Warmup(self.space, self.strategy, self.meter, self.scores, self.study, self.guide)
        self._ranks = [one for one in dict.fromkeys([*asked, *guides]) if one.kind is Kind.RANK]
        self._proposer: RandomSearch | AgeingEvolution | None = None
        self._read: set[int] = set()
        self._measured: dict[str, Measured] = {}
        self._families: dict[str, float] = {}

    def __enter__(self) -> Search:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process that measures latencies, and close the storage."""
        self.meter.close()
        stores.close_storage(self._storage)

    def prepare(self) -> Iterator[tuple[str, int, int]]:
        """Score what ranks and warm-up need, unless it is kept; yield what for, how many are done, and of how many."""
        for quantity in self._ranks:
            yield from self._references.make(quantity)
        if self._own_sampler and self._proposer is None:
            yield from self._warmup.make()
            self._proposer = self._proposing(self._warmup.best())

    def ask(self) -> Proposal:
        """Return an architecture to try; `tell` ends the trial."""
        for _ in self.prepare():
            pass
        for _ in range(_MOST_INVALID):
            proposal = self._ask()
            if proposal is not None:
                return proposal
        raise self._no_architecture()

    def tell(
        self, proposal: Proposal, values: float | Mapping[str, float] | None = None, *, reason: str | None = None
    ) -> Tried:
        """End a trial with what it is worth.

        values: the number of the one objective, or the numbers of all quantities by name; None where there is none,
        and `reason` says why.
        """
        if values is None:
            return self._tell(proposal, Measured(status="missing", reason=reason or "there is no number"))
        named = dict(values) if isinstance(values, Mapping) else {self.objectives[0].quantity.name: float(values)}
        lacking = [one.name for one in self.meter.quantities if one.name not in named]
        if lacking:
            raise UsageError(f"tell was given no {', '.join(lacking)}")
        odd = next((name for name, value in named.items() if not math.isfinite(value)), None)
        if odd is not None:
            return self._tell(proposal, Measured(status="undefined", reason=f"{odd} is {named[odd]}"))
        return self._tell(proposal, Measured(named))

    def measure(self, arch: str, record: Record | None = None) -> Measured:
        """Return all quantities of an architecture; record: of `Score.to_dict()`, where there is one."""
        known = self._measured.get(arch)
        if known is not None:
            return known
        record = record or self._known(arch)
        return self.meter.measure(arch, self.space.network(arch), record)

    def run(self, trials: int, each: Callable[[Tried], None] | None = None) -> SearchResult:
        """Search until the study holds so many trials, those of other processes included; return what was found.

        each: is told every trial that this process finishes.
        """
        for _ in self.prepare():
            pass
        told = each or (lambda _: None)
        scoring: list[Proposal] = []
        begun: dict[int, Proposal] = {}

        def ended(proposal: Proposal, record: Record | None = None) -> None:
            found = self._tell(proposal, self.measure(proposal.arch, record))
            del begun[proposal.number]
            told(found)

        def networks() -> Iterator[Any]:
            while (proposal := self._next(trials)) is not None:
                begun[proposal.number] = proposal
                if not self.meter.members or self._is_known(proposal.arch):
                    ended(proposal)
                    continue
                scoring.append(proposal)
                yield self.space.network(proposal.arch)

        options = self.meter.score_options()
        if any(one.kind is Kind.LATENCY for one in self.meter.quantities):
            options["jobs"] = 1  # nothing of ours runs beside what is timed
        try:
            for index, score in score_as_done(networks(), **options):
                ended(scoring[index], score.to_dict())
        finally:
            for number in begun:  # of a run that was broken off
                with contextlib.suppress(Exception):
                    self.study.tell(number, state=stores.optuna_module().trial.TrialState.FAIL, skip_if_finished=True)
        return self.result()

    def result(self) -> SearchResult:
        """Return everything that was found so far, by all processes."""
        found = tuple(self._trials.finished())
        return SearchResult(self.space.name, self.objectives, self.constraints, found, self.settings)

    def count(self) -> int:
        """Return how many trials of the study are finished."""
        return len(self._trials.finished())

    def _guide(self) -> Objective | None:
        if not self.strategy.warmup and self.strategy.move == "none":
            if self.strategy.guide is not None:
                raise UsageError(
                    "a guide decides in a warm-up or a move; give --warmup or --move, or leave out --guide"
                )
            return None
        if self.strategy.guide is not None:
            return parse_guide(self.strategy.guide)
        return next((one for one in self.objectives if one.quantity.members), parse_guide(EPSINAS))

    def _settings(self, arithmetic: str) -> dict[str, Any]:
        timed = any(one.kind is Kind.LATENCY for one in self.meter.quantities)
        options = {key: str(self.meter.options.get(key)) for key in ("weights", "inputs", "batch", "proxy_batch")}
        return {
            "space": getattr(self.space, "identity", self.space.name),
            "objectives": [str(one) for one in self.objectives],
            "constraints": [one.text for one in self.constraints],
            **asdict(self.strategy),
            "arithmetic": arithmetic,
            "latency": str(self.meter.latency) if timed else None,
            **options,
        }

    def _proposing(self, seeds: Sequence[str]) -> RandomSearch | AgeingEvolution:
        of = self.strategy
        if of.sampler == "random":
            return RandomSearch(self.space, seeds)
        guide = self._warmup.scores if of.move != "none" else None
        return AgeingEvolution(self.space, of.population, of.tournament, seeds, of.move, of.proposals, guide)

    def _next(self, trials: int) -> Proposal | None:
        """Return a proposal, None where the study has as many trials as wanted, those that are running included."""
        for _ in range(_MOST_INVALID):
            if not self._has_room(trials):
                return None
            proposal = self._ask()
            if proposal is None:
                continue
            if self._trials.position(proposal.number) < trials:
                return proposal
            self.study.tell(proposal.number, state=stores.optuna_module().trial.TrialState.FAIL)  # others were faster
        raise self._no_architecture()

    def _no_architecture(self) -> UsageError:
        return UsageError(
            f"{_MOST_INVALID} suggestions of {self.strategy.sampler} in a row are no architecture of {self.space.name}"
        )

    def _has_room(self, trials: int) -> bool:
        """Whether there are fewer than so many; waits while others may have begun one and not said so yet."""
        while True:
            taken, unknown = self._trials.taken()
            if taken >= trials or taken + unknown < trials:
                return taken < trials
            time.sleep(_MOMENT)

    def _ask(self) -> Proposal | None:
        optuna = stores.optuna_module()
        if not self._own_sampler:
            self._sample()
        trial = self.study.ask()
        trial.set_user_attr(stores.PROCESS, self._process)
        self._refresh()
        if self._proposer is None:
            from epsinas_exporters.spaces import ArchitectureError

            try:
                arch = chosen(trial, self.space)
            except ArchitectureError as error:
                trial.set_user_attr("status", INVALID)
                trial.set_user_attr("reason", str(error))
                self.study.tell(trial, state=optuna.trial.TrialState.PRUNED)
                return None
        else:
            position = self._trials.position(trial.number)
            rng = random.Random(f"{self.strategy.seed}:{position}")
            arch = self._proposer.propose(
                self._trials.youngest(self.strategy.population), position, self._measured.keys(), rng
            )
        trial.set_user_attr("arch", arch)
        return Proposal(trial.number, arch, trial)

    def _sample(self) -> None:
        """Give the study a sampler that draws as no other does: a search that goes on draws nothing again."""
        if self._samplers == 0:
            begun = len(self.study.get_trials(deepcopy=False))
            self.study.set_user_attr(f"process:{self._process}", begun)
            known = [key.removeprefix("process:") for key in self.study.user_attrs if key.startswith("process:")]
            beside = any(name != self._process and not stores.is_gone(name) for name in known)
            own = self._process if beside else ""
            seed = random.Random(f"{self.strategy.seed}:{begun}:{own}").randrange(2**31)
            self.study.sampler = make_sampler(self.strategy.sampler, seed, self.space, len(self.objectives))
        self._samplers += 1

    def _tell(self, proposal: Proposal, measured: Measured) -> Tried:
        state = stores.optuna_module().trial.TrialState
        trial = proposal.trial
        trial.set_user_attr("values", dict(measured.values))
        if measured.notes:
            trial.set_user_attr("notes", dict(measured.notes))
        if measured.reason is not None:
            trial.set_user_attr("reason", measured.reason)
        if measured.status == "ok":
            for bound in self.constraints:
                trial.set_constraint(bound.text, bound.violation(measured.values[bound.quantity.name]))
        trial.set_user_attr("status", measured.status)
        if measured.status == "ok":
            told = self.study.tell(trial, [measured.values[one.quantity.name] for one in self.objectives])
        else:
            told = self.study.tell(trial, state=state.FAIL)
        self._remember(proposal.arch, measured)
        return tried(told)

    def _refresh(self) -> None:
        """Take over what other processes, and this search before it was cut off, have measured."""
        for one in self._trials.finished():
            if one.number not in self._read:
                self._read.add(one.number)
                self._remember(one.arch, Measured(one.values, one.status, one.reason, one.notes))

    def _remember(self, arch: str, measured: Measured) -> None:
        if measured.status != "error":
            self._measured.setdefault(arch, measured)
        if EPSINAS in measured.values:
            self._families.setdefault(self.space.family(arch), measured.values[EPSINAS])

    def _is_known(self, arch: str) -> bool:
        return arch in self._measured or self._known(arch) is not None

    def _known(self, arch: str) -> Record | None:
        """Return a record of an architecture that has not to be scored."""
        record = self.scores.get(arch)
        if not lacks(record, self.meter.members):
            return record
        counts = self.space.counts(arch)
        if {*self.meter.members} <= {EPSINAS, PARAMS} and not self._ranks and counts is not None:
            score = self._families.get(self.space.family(arch))
            if score is not None:
                return {"model": arch, "score": score, "status": "ok", "parameters": counts.parameters}
        return None
