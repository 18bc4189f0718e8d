"""Objectives for a search of one's own: in an Optuna study, as a function, and of networks that no space describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import optuna
import pytest

from epsinas_exporters import spaces
from epsinas_onnx import score
from epsinas_onnx.errors import UsageError
from epsinas_onnx.search import LatencySettings, objective, scorer
from tests.search.toy import Bare, Toy

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_an_objective_of_a_space_in_a_study_of_ones_own() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(objective(Toy(), ["epsinas", "params"], constraints=["params<=60"], arithmetic="auto"), n_trials=12)
    done = [trial for trial in study.trials if trial.state == optuna.trial.TrialState.COMPLETE]
    assert done
    for trial in done:
        found = score(Toy().build(trial.user_attrs["arch"]), weights=(1e-2, 1.0), inputs="normal", batch=8)
        assert trial.values == [pytest.approx(found.score), found.parameters]
        assert (trial.constraints["params<=60"] <= 0) is (trial.values[1] <= 60)
    assert all(trial.values[1] <= 60 for trial in study.best_trials)


def test_a_network_without_a_number_is_pruned_with_its_reason() -> None:
    study = optuna.create_study(direction="maximize")
    study.enqueue_trial({f"digit{place}": "0" for place in range(6)})
    study.optimize(objective(Toy(), "epsinas"), n_trials=1)
    [trial] = study.trials
    assert trial.state == optuna.trial.TrialState.PRUNED
    assert trial.user_attrs["status"] == "constant"
    assert "epsinas" in trial.user_attrs["reason"]


def test_choices_that_are_no_architecture_are_pruned() -> None:
    space = spaces.get("nasbench101")
    study = optuna.create_study(direction="maximize")
    nothing = {name: 0 if "-" in name else "conv3x3-bn-relu" for name in space.decisions() or {}}
    study.enqueue_trial(nothing)
    study.optimize(objective(space, "epsinas"), n_trials=1)
    assert study.trials[0].user_attrs["status"] == "invalid"


def test_an_objective_of_a_function_that_returns_models() -> None:
    def network(trial: optuna.Trial) -> onnx.ModelProto:
        import onnx_ir as ir

        digits = [str(trial.suggest_int(f"width{layer}", 1, 3)) for layer in range(trial.suggest_int("depth", 1, 6))]
        return ir.to_proto(Toy().build("".join(digits).ljust(6, "0")))

    study = optuna.create_study(directions=["minimize", "minimize"], sampler=optuna.samplers.RandomSampler(seed=0))
    latency = LatencySettings(provider="cpu", runs=5)
    study.optimize(objective(network, ["params", "latency"], latency=latency, batch=8), n_trials=4)
    for trial in study.trials:
        digits = [str(trial.params[f"width{layer}"]) for layer in range(trial.params["depth"])]
        alone = score(Toy().build("".join(digits).ljust(6, "0")), batch=8)
        assert trial.values[0] == alone.parameters
        assert trial.values[1] > 0


def test_a_function_of_architectures_and_of_files() -> None:
    value = scorer(Toy(), "epsinas", arithmetic="auto")
    alone = score(Toy().build("123123"), weights=(1e-2, 1.0), inputs="normal", batch=8)
    assert value("123123") == pytest.approx(alone.score)
    assert value("000000") is None
    models = Path(__file__).parents[2] / "models"
    of_file = scorer(quantity="params", batch=8)
    assert of_file(models / "mlp.onnx") == 535_818
    assert of_file(models / "missing.onnx") is None
    ranked = scorer(Toy(), "counts", reference=10)
    assert (ranked("333333") or -99) > (ranked("100000") or -99)


def test_choices_of_every_space_are_architectures() -> None:
    for name in spaces.names():
        space = spaces.get(name)
        decisions = space.decisions()
        if decisions is None:
            continue
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        found = set()

        def suggested(trial: optuna.Trial, space: Any = space, found: set[str] = found) -> float:
            from epsinas_onnx.search.optuna_samplers import chosen

            try:
                found.add(chosen(trial, space))
            except ValueError as error:
                raise optuna.TrialPruned(str(error)) from None
            return 0.0

        study.optimize(suggested, n_trials=30)
        assert len(found) > 15
        assert all(space.parse(arch) == arch for arch in found)


def test_every_architecture_of_a_space_has_choices_that_give_it() -> None:
    import itertools

    for name in ("nasbenchmacro", "nasbench201"):
        space = spaces.get(name)
        decisions = space.decisions() or {}
        made = {
            space.from_choices(dict(zip(decisions, choices, strict=True)))
            for choices in itertools.product(*decisions.values())
        }
        assert made == set(space.enumerate())


@pytest.mark.parametrize(
    ("source", "quantity", "said"),
    [
        (Bare(), "epsinas", "bare has no list of decisions to suggest"),
        (lambda _: "x", "default", "a combination is a rank among networks of a space"),
        (Toy(), "beauty", "there is nothing called 'beauty'"),
        ("nowhere", "epsinas", "there is no search space 'nowhere'"),
    ],
)
def test_objectives_that_cannot_be(source: Any, quantity: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        objective(source, quantity)
