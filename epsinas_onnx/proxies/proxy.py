"""What a training-free score is to the rest of the package: what it asks of a run, and its number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy.typing as npt

if TYPE_CHECKING:
    from epsinas_onnx.proxies.prepared import Prepared

Array = npt.NDArray[Any]


class UndefinedError(Exception):
    """The formula of a score gives no finite number for this model; the message says why. It leaves no score."""


class Proxy(ABC):
    """One training-free score.

    Several scores of a model share one run of one graph: each is asked first which values it needs, then all are
    computed in one session, and each is given its own.

    Attributes:
        name: what it is called in the registry, on the command line and in records.
        summary: what it measures, in a few words.
        source: the paper, and its identifier.
        seeded: whether the number depends on the seed of weights and inputs.
        plans_once: whether one plan is all that it asks of a model; where it is the only score, the model is then not
            copied.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    seeded: ClassVar[bool] = True
    plans_once: ClassVar[bool] = False

    def ask(self, prepared: Prepared) -> Sequence[str]:
        """Return the names of the values of `prepared.graph` that are needed; nodes may be appended to it for them.

        Raises UnsupportedError with the node where the graph has nothing to ask for, or has no rule for it.
        """
        return ()

    @abstractmethod
    def value(self, prepared: Prepared, fetched: Mapping[str, Array]) -> float:
        """Return the number of a model; fetched: what `ask` named, as one run of the minibatch gave it.

        A number that is not finite is reported as `undefined`. Raises UndefinedError where the formula has none and
        the reason is known, UnsupportedError where the graph has nothing that the score looks at.
        """
