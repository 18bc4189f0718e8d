"""Rules about budgets, which are silent until the configuration sets one: parameters, multiply-adds, bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated

from pydantic import BeforeValidator, Field

from epsinas_onnx.check.finding import Severity
from epsinas_onnx.check.model import ModelUnderCheck
from epsinas_onnx.check.rule import Options, Problem, Rule
from epsinas_onnx.multiply_adds.call import UNKNOWN_SHAPE

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

_GIVE_SHAPES = "Give the shapes of its inputs: score.shapes in the configuration."
_EXPORT_OTHERWISE = "Export the model without that node, or ignore the rule for the path."


class Budget(Options):
    """The most that is allowed."""

    max: Annotated[int, Field(ge=0)] | None = None


def _bytes(given: object) -> object:
    """Return the bytes in a text such as 25 MB; anything else is left to the validation of a whole number."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", given.strip()) if isinstance(given, str) else None
    if match is None or match[2].upper() not in _UNITS:
        return given
    return int(float(match[1]) * _UNITS[match[2].upper()])


class ByteBudget(Options):
    """The most bytes that are allowed, as a number or with a unit: KB, MB, GB, KiB, MiB, GiB."""

    max: Annotated[int, Field(ge=0), BeforeValidator(_bytes)] | None = None


def _over(what: str, found: int, most: int) -> Problem:
    share = f", {100 * found / most - 100:.1f}% more" if most else ""
    return Problem(f"it has {found:,} {what}, and {most:,} are allowed{share}")


def _parameters(model: ModelUnderCheck, options: Budget) -> Iterator[Problem]:
    if options.max is not None and model.parameters > options.max:
        yield _over("parameters", model.parameters, options.max)


def _multiply_adds(model: ModelUnderCheck, options: Budget) -> Iterator[Problem]:
    if options.max is None:
        return
    counted = model.counted
    if counted.total > options.max:
        yield _over("multiply-adds for one sample", counted.total, options.max)
        return
    for note in counted.notes():
        yield Problem(
            f"it may have more multiply-adds than the {counted.total:,} that are counted: {note}",
            fix=_GIVE_SHAPES if counted.why == UNKNOWN_SHAPE else _EXPORT_OTHERWISE,
        )


def _size(model: ModelUnderCheck, options: ByteBudget) -> Iterator[Problem]:
    if options.max is not None and model.size > options.max:
        yield _over("bytes, external data included", model.size, options.max)


BUDGETS = (
    Rule(
        "parameter-budget",
        Severity.ERROR,
        "There are more learned parameters than allowed.",
        "The score grows with nothing that a device pays for, so a search needs a limit of its own.",
        "Make the network narrower, or raise max.",
        "Leave `max` out, or give another one for the path.",
        _parameters,
        Budget,
    ),
    Rule(
        "multiply-add-budget",
        Severity.ERROR,
        "One sample takes more multiply-adds (convolutions, matrix products, attention, recurrences) than allowed.",
        "They decide how long a device computes; the score does not know them.",
        "Make the network narrower, the input smaller, or raise max.",
        "Leave `max` out, or give another one for the path.",
        _multiply_adds,
        Budget,
    ),
    Rule(
        "size-budget",
        Severity.ERROR,
        "The file with its external data has more bytes than allowed.",
        "Weights do not matter for the score, but whoever downloads them pays for them.",
        "Store weights in a smaller type, take out what is not read (unused-initializer), or raise max.",
        "Leave `max` out, or give another one for the path.",
        _size,
        ByteBudget,
    ),
)
