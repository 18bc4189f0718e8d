"""The trials of a study that belong to a search: which count, what each found, and which population they make."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import TYPE_CHECKING

from epsinas_onnx.search.evolution import Individual
from epsinas_onnx.search.quantities import Objective
from epsinas_onnx.search.results import Tried
from epsinas_onnx.search.storage import PROCESS, is_gone

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

INVALID = "invalid"
"""The status of a suggestion that is no architecture."""
_YOUNG = datetime.timedelta(seconds=10)
"""A trial of this age may not say yet whose it is; an older one never will, since its process was killed."""


class Trials:
    """The trials of one search, those of other processes included; read anew each time."""

    def __init__(self, study: optuna.Study, objectives: Sequence[Objective]) -> None:
        self._study, self._objectives = study, objectives

    def all(self) -> list[FrozenTrial]:
        """Return every trial of the study, in order."""
        found: list[FrozenTrial] = self._study.get_trials(deepcopy=False)
        return found

    def finished(self) -> list[Tried]:
        """Return what was tried and has come to an end, in order."""
        return [tried(one) for one in self.all() if counts(one, finished=True)]

    def taken(self) -> tuple[int, int]:
        """Return how many there are, those that somebody is at included; and of how many that is not known yet."""
        trials = self.all()
        return sum(map(counts, trials)), sum(map(_is_new, trials))

    def position(self, number: int) -> int:
        """Return how many of them came before the trial of a number."""
        return sum(counts(one) or _is_new(one) for one in self.all() if one.number < number)

    def youngest(self, count: int) -> list[Individual]:
        """Return the last so many that have all numbers, the oldest first."""
        fitting = [one for one in self.finished() if one.status == "ok"]
        return [
            Individual(
                one.arch, tuple(of.worth(one.values[of.quantity.name]) for of in self._objectives), one.violation
            )
            for one in fitting[-count:]
        ]


def tried(trial: FrozenTrial) -> Tried:
    """Return what a finished trial found."""
    attrs = trial.user_attrs
    violation = sum(max(one, 0.0) for one in trial.constraints.values())
    return Tried(
        trial.number, attrs.get("arch", ""), attrs.get("values", {}), attrs["status"], attrs.get("reason"), violation,
        attrs.get("notes", {}),
    )  # fmt: skip


def counts(trial: FrozenTrial, finished: bool = False) -> bool:
    """Whether a trial is one of the search: it has come to an end, or, unless `finished`, somebody is at it."""
    status = trial.user_attrs.get("status")
    if status == INVALID:
        return False
    if trial.state.is_finished():
        return status is not None
    return not finished and PROCESS in trial.user_attrs and not is_gone(trial.user_attrs[PROCESS])


def _is_new(trial: FrozenTrial) -> bool:
    """Whether a trial was begun a moment ago, and does not say yet by whom."""
    began = trial.datetime_start
    unsaid = not trial.state.is_finished() and PROCESS not in trial.user_attrs
    return unsaid and began is not None and datetime.datetime.now() - began < _YOUNG
