"""What a rule is: its stable name, how bad it is, what it looks at, why it matters and how to mend what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from epsinas_onnx.check.finding import Severity

if TYPE_CHECKING:
    from epsinas_onnx.check.model import ModelUnderCheck


class Options(BaseModel):
    """The options of a rule beside its severity, as the configuration names them; most have none."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Problem:
    """What a rule finds in one model: a sentence without the model's name.

    node: the node it is about, None where it is about the file. fix: what to do, where the rule's own advice is too
    general.
    """

    message: str
    node: str | None = None
    fix: str | None = None


@dataclass(frozen=True)
class Rule:
    """A rule.

    severity: where the configuration says nothing. summary: what it catches, one line. why: why that matters for the
    score, a sentence. fix: how to mend it, a sentence. ignore: when and
    how to ignore it, a sentence. check: yields what it finds in a model, given the options of
    the configuration; it may raise ModelError where the model cannot be looked at. options: what it can be told.
    """

    name: str
    severity: Severity
    summary: str
    why: str
    fix: str
    ignore: str
    check: Callable[[ModelUnderCheck, Any], Iterator[Problem]]
    options: type[Options] = Options
