"""Rules about what ONNX allows: a file that can be read, a valid graph, known operator sets and domains."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.graph.load import STANDARD_DOMAINS
from epsinas_onnx.scoring.warnings import custom_operators


def _unreadable(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    assert model.loaded  # raises ModelError, which becomes a finding of this rule
    yield from ()


UNREADABLE = Rule(
    "unreadable",
    Severity.ERROR,
    "The file is missing, empty, cut off, no ONNX, or contradicts itself.",
    "Nothing can be said about a model that cannot be read.",
    "Export or copy the file again.",
    "Leave the file out of the paths; a file that is no ONNX needs no rule.",
    _unreadable,
)


def _invalid(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    try:
        onnx.checker.check_model(_for_checker(model.path), full_check=True)
    except onnx.checker.ValidationError as error:
        if not _is_missing_data(model, str(error)):
            yield Problem(f"onnx's checker refuses it: {_one_line(error)}")
    except onnx.shape_inference.InferenceError as error:
        yield Problem(f"its shapes contradict each other: {_one_line(error)}")
    except (RuntimeError, ValueError, TypeError) as error:  # what the checker's own code stumbles over
        yield Problem(f"onnx's checker cannot read it: {_one_line(error)}")


def _for_checker(path: str) -> str | bytes:
    """Return a path, or what is in the file where the checker, which takes UTF-8 alone, cannot be told its name."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return Path(path).read_bytes()
    return path


def _is_missing_data(model: ModelUnderCheck, message: str) -> bool:
    """Whether the checker complains about a missing data file, which the rule weight-data reports."""
    return any(size is None and name in message for name, size in model.data_files.items())


def _one_line(error: BaseException) -> str:
    """Return what the checker says, without the places in its own source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith("==>"))[:400]


class OpsetRange(Options):
    """Operator sets of the standard domain, both included."""

    min: int | None = 7
    max: int | None = None


def _opset(model: ModelUnderCheck, options: OpsetRange) -> Iterator[Problem]:
    opset = model.opset
    if opset is None:
        return
    if options.min is not None and opset < options.min:
        yield Problem(f"it uses operator set {opset}, and the oldest allowed is {options.min}")
    if options.max is not None and opset > options.max:
        yield Problem(f"it uses operator set {opset}, and the newest allowed is {options.max}")


def _domains(model: ModelUnderCheck, _: Options) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for node in model.loaded.model.graph.all_nodes():
        first.setdefault(f"{node.domain}::{node.op_type}", str(node.name))
    for operator, count in custom_operators(model.loaded.model, STANDARD_DOMAINS).items():
        times = "" if count == 1 else f", {count} times"
        yield Problem(f"the operator {operator} is of a domain that ONNX Runtime does not know{times}", first[operator])


VALID = (
    Rule(
        "invalid-onnx",
        Severity.ERROR,
        "onnx's own checker or shape inference refuses the model.",
        "ONNX Runtime may run an invalid graph today and refuse it tomorrow; shapes that contradict each other lead to "
        "roles that are wrong.",
        "Export the model again with a newer exporter, and report the message to it.",
        "Ignore it by path where the runtime that you deploy to accepts the graph, with the checker's message as "
        "the reason.",
        _invalid,
    ),
    Rule(
        "opset-range",
        Severity.WARNING,
        "The operator set is older or newer than allowed.",
        "Operators change their meaning between operator sets, and runtimes on devices know only some; below 7 a model "
        "is lifted before it is scored.",
        "Export the model for an allowed operator set, or convert it with onnx.version_converter.",
        "Give `min` and `max` for the path, rather than switching the rule off.",
        _opset,
        OpsetRange,
    ),
    Rule(
        "unknown-domain",
        Severity.ERROR,
        "An operator is of a domain that ONNX Runtime does not know.",
        "Such a model cannot be run without the library that it needs, so it has no score.",
        "Export the model without custom operators, or define them as model-local functions.",
        "Ignore it by path and node for operators that your runtime has a library for; such a model has no score.",
        _domains,
    ),
)
