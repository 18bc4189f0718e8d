"""Rules about the baseline: a score or a graph that is no longer what it was."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from epsinas_onnx._util.text import without_subject
from epsinas_onnx.check.baseline import written_by
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.scoring.result import ABSOLUTE, RELATIVE, same_score

_WRITE = "If the change is meant, write the baseline again: epsinas-onnx baseline write."


def _missing(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    if model.expected is not None and model.expected.entry is None:
        yield Problem(f"the baseline {model.expected.name} does not know it")


class ScoreTolerance(Options):
    """How far a score may be from the baseline's: the larger of both."""

    relative: float = Field(RELATIVE, ge=0)
    absolute: float = Field(ABSOLUTE, ge=0)


def _score(model: ModelUnderCheck, options: ScoreTolerance) -> Iterator[Problem]:
    expected = model.expected
    if expected is None or expected.entry is None:
        return
    changes = model.settings.changes(expected.settings)
    if changes:
        yield Problem(
            f"the baseline was written for other options than those of now: {changes}",
            fix="Take the old options back, or write the baseline again.",
        )
        return
    entry, score = expected.entry, model.score
    by = "" if expected.written_by in ("", written_by()) else f"; the baseline was written by {expected.written_by}"
    if score.status is not entry.status:
        reason = without_subject(score.reason or "", model.path)
        yield Problem(f"the status is {score.status}, and was {entry.status}{reason and f' ({reason})'}{by}")
    elif not same_score(score.score, entry.score, options.relative, options.absolute):
        yield Problem(f"the score is {score.score:.6g}, and was {entry.score:.6g}{by}")


def _graph(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    entry = None if model.expected is None else model.expected.entry
    if entry is None or model.fingerprint == entry.fingerprint:
        return
    facts = model.facts()
    parts = [
        f"{what} {before:,} -> {after:,}"
        for what, before, after in (
            ("parameters", entry.parameters, facts.parameters),
            ("multiply-adds", entry.multiply_adds, facts.multiply_adds),
            ("operator set", entry.opset, facts.opset),
        )
        if before is not None and after is not None and before != after
    ]
    changed = f" ({', '.join(parts)})" if parts else " (as many parameters and multiply-adds)"
    yield Problem(f"the graph is not the baseline's{changed}")


EXPECTED = (
    Rule(
        "missing-baseline",
        Severity.WARNING,
        "There is a baseline, and it does not know the model.",
        "A model that the baseline does not know is compared with nothing.",
        "Add it: epsinas-onnx baseline write with the path of the model.",
        "Ignore it by path for models that change all the time.",
        _missing,
    ),
    Rule(
        "score-baseline",
        Severity.ERROR,
        "The score, or its status, is not what the baseline says.",
        "Weights do not matter for the score, so a different one means a different network, input or version.",
        f"Look at what changed with epsinas-onnx diff. {_WRITE}",
        "Give `relative` and `absolute` for the path where providers differ by more than rounding.",
        _score,
        ScoreTolerance,
    ),
    Rule(
        "graph-baseline",
        Severity.ERROR,
        "The weightless graph is not the one in the baseline.",
        "The architecture changed, whatever the weights: an operator, an attribute, a shape or a connection.",
        f"Look at what changed with epsinas-onnx diff OLD NEW. {_WRITE}",
        "Ignore it by path while an architecture is being developed.",
        _graph,
    ),
)
