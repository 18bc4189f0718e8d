"""Optuna's samplers by name, and an architecture as what they choose: one value for each decision of a space."""

from __future__ import annotations

import importlib.util
import inspect
import warnings
from typing import TYPE_CHECKING, Any

from epsinas_onnx.errors import UsageError
from epsinas_onnx.search.storage import optuna_module

if TYPE_CHECKING:
    import optuna

    from epsinas_exporters.spaces import SearchSpace

OWN = ("evolution", "random")
"""Samplers that draw and mutate, and so work on any space."""
_NAMES = {
    "tpe": "TPESampler", "nsga2": "NSGAIISampler", "nsga3": "NSGAIIISampler", "gp": "GPSampler",
    "cmaes": "CmaEsSampler", "qmc": "QMCSampler", "bruteforce": "BruteForceSampler",
}  # fmt: skip
_ONE_OBJECTIVE = ("CmaEsSampler",)
_NEEDS = {"CmaEsSampler": "cmaes", "GPSampler": "torch"}
_NEEDS_NUMBERS = ("CmaEsSampler", "QMCSampler")
"""Samplers that draw choices without an order at random, one by one."""


def sampler_names() -> tuple[str, ...]:
    """Return the names of all samplers, ours first."""
    return (*OWN, *_NAMES)


def make_sampler(name: str, seed: int, space: SearchSpace, objectives: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's sampler of a short name, or of the name of its class.

    Raises UsageError for an unknown name, a space without a list of decisions, and a sampler that cannot do this.
    """
    if name not in _NAMES and name not in _NAMES.values():
        raise UsageError(f"there is no sampler {name!r}; there are {', '.join(sampler_names())}")
    called = _NAMES.get(name, name)
    decisions = space.decisions()
    if decisions is None:
        raise UsageError(
            f"{space.name} has no list of decisions that Optuna's sampler {name} could choose from; the samplers "
            f"{' and '.join(OWN)} draw and mutate, and work on any space"
        )
    if objectives > 1 and called in _ONE_OBJECTIVE:
        raise UsageError(
            f"the sampler {name} takes one objective; tpe, nsga2, nsga3, gp, evolution and random take several"
        )
    if called in _NEEDS_NUMBERS and not any(isinstance(one, range) for one in decisions.values()):
        raise UsageError(
            f"the sampler {name} works on numbers, and the decisions of {space.name} are choices without an order; "
            "take tpe, nsga2, gp or evolution"
        )
    needed = _NEEDS.get(called)
    if needed is not None and importlib.util.find_spec(needed) is None:
        raise UsageError(f"the sampler {name} needs {needed}; run 'pip install {needed}'")
    kind = getattr(optuna_module().samplers, called)
    options: dict[str, Any] = {"seed": seed}
    if "warn_independent_sampling" in inspect.signature(kind).parameters:
        options["warn_independent_sampling"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made: optuna.samplers.BaseSampler = kind(**options)
    except ImportError as error:
        raise UsageError(f"the sampler {name} needs {error.name}; run 'pip install {error.name}'") from None
    return made


def chosen(trial: optuna.Trial, space: SearchSpace) -> str:
    """Return the architecture that a trial suggests; raises ArchitectureError where its choices make none."""
    choices: dict[str, str | int] = {}
    for name, one in (space.decisions() or {}).items():
        if isinstance(one, range):
            choices[name] = trial.suggest_int(name, one[0], one[-1], step=one.step)
        else:
            choices[name] = trial.suggest_categorical(name, one)
    return space.from_choices(choices)
