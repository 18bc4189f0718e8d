"""Looks at models with the rules of a configuration, each in a worker process, and keeps what they find."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from epsinas_onnx._util.gc import collection_paused
from epsinas_onnx._util.logging import quiet_libraries
from epsinas_onnx._util.text import sentence, without_subject
from epsinas_onnx.check.baseline import Baseline, read_baseline
from epsinas_onnx.check.config import Config, Settings
from epsinas_onnx.check.finding import CheckedModel, Finding, Severity
from epsinas_onnx.check.model import Expected, ModelUnderCheck
from epsinas_onnx.check.rule import Problem, Rule
from epsinas_onnx.check.rules import RULES
from epsinas_onnx.check.rules.valid import UNREADABLE
from epsinas_onnx.errors import EpsinasError
from epsinas_onnx.runtime.providers import choose_providers
from epsinas_onnx.scoring.facts import Facts
from epsinas_onnx.scoring.jobs import Jobs, choose_jobs
from epsinas_onnx.scoring.limits import NO_LIMITS, Limits
from epsinas_onnx.scoring.supervisor import Failure, in_order
from epsinas_onnx.scoring.workers import work_in_processes


def check_many(
    models: Sequence[str], config: Config, *, jobs: Jobs = 1, with_score: bool = False, limits: Limits = NO_LIMITS
) -> Iterator[CheckedModel]:
    """Check models, yielding each in order; one that cannot be read, or that ends its worker, has a finding.

    models: paths. jobs: worker processes, as for `score_many`. with_score: whether every model is scored, rather than
    only where a rule asks for the score. limits: of one model.

    Raises UsageError where the configuration or its baseline is wrong, before anything is checked.
    """
    return in_order(check_as_done(models, config, jobs=jobs, with_score=with_score, limits=limits))


def check_as_done(
    models: Sequence[str], config: Config, *, jobs: Jobs = 1, with_score: bool = False, limits: Limits = NO_LIMITS
) -> Iterator[tuple[int, CheckedModel]]:
    """Check models, yielding each with its position as it comes; see `check_many`."""
    choose_providers(config.provider)
    baseline = None if config.baseline is None else read_baseline(config.baseline)
    tasks = [(model, task_of(model, config, baseline, with_score)) for model in models]
    return work_in_processes(check_one, tasks, choose_jobs(jobs, models), failed, limits)


Task: TypeAlias = tuple[str, Settings, str, Expected | None, bool]
"""The arguments of `check_one`."""


def task_of(model: str, config: Config, baseline: Baseline | None, with_score: bool = False) -> Task:
    """Return what a worker is told about a model."""
    known = None if baseline is None or config.baseline is None else Expected(config.baseline, baseline, model)
    return model, config.settings_for(model), config.provider, known, with_score


def failed(model: str, failure: Failure) -> CheckedModel:
    """Return what is found of a model that ended its worker."""
    finding = Finding(UNREADABLE.name, UNREADABLE.severity, failure.cause, UNREADABLE.fix)
    return CheckedModel(model, (finding,), Facts(), failure.seconds)


def check_one(
    model: str, settings: Settings, provider: str, expected: Expected | None = None, with_score: bool = False
) -> CheckedModel:
    """Check one model in this process; see `check_many`."""
    quiet_libraries()
    with collection_paused():  # what is collected at its end must be out of reach by then
        return _checked(ModelUnderCheck(model, settings.score, provider, expected), settings, with_score)


def _checked(model: ModelUnderCheck, settings: Settings, with_score: bool) -> CheckedModel:
    started = time.perf_counter()
    findings = _findings(model, settings)
    facts = model.facts(with_score=with_score)
    return CheckedModel(model.path, tuple(findings), facts, time.perf_counter() - started)


def _findings(model: ModelUnderCheck, settings: Settings) -> list[Finding]:
    """Return what the rules find; of a model that cannot be read, that alone."""
    found: list[Finding] = []
    failures: dict[str, None] = {}
    unreadable = settings.rules.get(UNREADABLE.name)
    for name, setting in settings.rules.items():
        rule = RULES[name]
        try:
            for problem in rule.check(model, setting.options):
                found.append(_finding(rule, setting.severity, problem))
        except EpsinasError as error:
            failures[without_subject(str(error), model.path)] = None
        except Exception as error:  # whatever a foreign file provokes costs one finding, never the check
            text = " ".join(str(error).split()) or type(error).__name__
            failures[f"unexpected {type(error).__name__} in the rule {name}: {text}; please report this file"] = None
        if failures and rule is UNREADABLE:
            break
    if unreadable is not None:
        said = " ".join(finding.message for finding in found)
        failed = [Problem(text) for text in failures if text not in said]  # the status of a score says it too
        found = [*(_finding(UNREADABLE, unreadable.severity, problem) for problem in failed), *found]
    return [_with_ignored(finding, settings) for finding in found]


def _finding(rule: Rule, severity: Severity, problem: Problem) -> Finding:
    return Finding(rule.name, severity, sentence(problem.message), sentence(problem.fix or rule.fix), problem.node)


def _with_ignored(finding: Finding, settings: Settings) -> Finding:
    reason = next((one.reason for one in settings.ignore if one.covers(settings.path, finding)), None)
    return finding if reason is None else dataclasses.replace(finding, ignored=reason)
