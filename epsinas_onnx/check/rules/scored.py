"""Rules about the score: a model without weights, and one whose status is not `ok`."""

from __future__ import annotations

from collections.abc import Iterator

from epsinas_onnx._util.text import without_subject
from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.graph.analysis.roles import Role
from epsinas_onnx.scoring.result import Status
from epsinas_onnx.scoring.warnings import no_weights

_RANGE = (
    'Leave the float32 range with score.arithmetic = "auto"; where that is set, compare a value in front of the node '
    "(score.outputs)."
)
_FIXES = {
    Status.UNDERFLOW: _RANGE,
    Status.OVERFLOW: _RANGE,
    Status.CONSTANT: "See with epsinas-onnx inspect which node cuts the input off; ignore the rule if it is meant.",
    Status.NOISE: "Use other constants, or compare another value (score.outputs); ignore the rule for a network whose "
    "exact score is 0.",
    Status.ERROR: "Do what the message says; epsinas-onnx inspect shows how the file is read.",
}
"""What to do, by status."""


def _weightless(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    if not model.planned.decisions.with_role(Role.WEIGHT):
        yield Problem(no_weights(model.planned.model))


def _status(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    score = model.score
    if score.status is not Status.OK:
        reason = without_subject(score.reason or "no reason is known", model.path)
        yield Problem(f"the status is {score.status}: {reason}", fix=_FIXES.get(score.status))


SCORED = (
    Rule(
        "no-weights",
        Severity.WARNING,
        "No tensor of the model is a weight.",
        "Two constants cannot make a difference where there is nothing to set to them.",
        "Look at the roles with epsinas-onnx inspect, and name the weights with a role if they were not recognised.",
        "Ignore it by path for pre- and postprocessing that is kept as ONNX.",
        _weightless,
    ),
    Rule(
        "score-status",
        Severity.WARNING,
        "The model has no score: its status is not ok.",
        "A baseline can only compare what has a score; a status that was ok before tells of a broken export.",
        "Read the reason: it names the node in which the signal ends, and score.outputs may name a value before it.",
        "Ignore it by path for networks that have no score with any constants, such as transformers whose exact "
        "output is constant.",
        _status,
    ),
)
