"""The interface of a search space: architectures are strings, networks are ONNX graphs written directly."""

from __future__ import annotations

import hashlib
import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import onnx_ir as ir

if TYPE_CHECKING:
    from epsinas_onnx.graph.load import Buildable

Choices: TypeAlias = "tuple[str | int, ...] | range"
"""What one decision chooses from."""

ATTEMPTS = 1_000
"""How often `sample` draws an architecture that it already has before it gives up."""


class ArchitectureError(ValueError):
    """A text that does not describe an architecture of the space; the message names the part that is wrong."""


class NotEnumerable(TypeError):
    """The space has no list of all its architectures."""


@dataclass(frozen=True)
class Defaults:
    """What the scores of a space are computed with: the two constants, the kind of input, samples in the minibatch."""

    weights: tuple[float, float]
    input: str
    batch: int


@dataclass(frozen=True)
class Counts:
    """What a network has of its own whatever it computes: elements of its learned tensors, and nodes of its graph."""

    parameters: int
    nodes: int


class SearchSpace(ABC):
    """A search space. An architecture is a text in canonical form: equal texts are equal architectures.

    name: how the command line calls it. title: name, authors and venue. size: how many architectures it holds, None
    where nobody can tell. form: an architecture as an example. defaults: what scores are computed with. sizes: what
    `build` takes beside the architecture, each with the benchmark's own value.

    A package adds a space through the entry point group `epsinas_exporters.spaces`, whose entries are instances or
    classes that take no arguments.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    size: ClassVar[int | None]
    form: ClassVar[str]
    defaults: ClassVar[Defaults]
    sizes: ClassVar[Mapping[str, int]] = {}

    @abstractmethod
    def parse(self, text: str) -> str:
        """Return the canonical form of the architecture in `text`; raises ArchitectureError."""

    @abstractmethod
    def enumerate(self) -> Iterator[str]:
        """Yield every architecture once, in the benchmark's order where it has one; raises NotEnumerable."""

    @abstractmethod
    def draw(self, rng: random.Random) -> str:
        """Return one architecture drawn at random."""

    @abstractmethod
    def mutate(self, arch: str, rng: random.Random) -> str:
        """Return a neighbour of `arch`: another architecture that differs from it in one decision."""

    @abstractmethod
    def build(self, arch: str, **sizes: int) -> ir.Model:
        """Return the network of `arch` with no weight bytes and a free batch.

        sizes: some of the space's `sizes`. Raises ArchitectureError, ValueError for a size below 1, and TypeError for
        a size that the space's networks do not have.
        """

    def network(self, arch: str) -> Buildable:
        """Return `arch` as what `epsinas_onnx.score` takes: a small picklable object that is built where it is scored.

        A space that is installed under its name needs nothing else; one that is made in a program returns an object of
        its own, which carries what it takes to build the network in another process. Raises ArchitectureError.
        """
        from epsinas_exporters.spaces import Network

        return Network(self.name, self.parse(arch))

    def family(self, arch: str) -> str:
        """Return a text that is equal for architectures whose networks compute the same, but for rounding.

        That is while all weights are one constant: what is cut off, the order of summands, and whether one value is
        computed twice make no difference then. A family is scored once. `arch` itself, unless a space knows better.
        """
        return self.parse(arch)

    def build_live(self, arch: str) -> ir.Model:
        """Return a network of the same family that runs sooner: without what its output does not need, or has twice.

        Where its output is constant the same node is to blame, by the same name, as in the network of `arch`. That
        network itself, unless a space knows better.
        """
        return self.build(arch)

    def counts(self, arch: str) -> Counts | None:
        """Return what tells the networks of a family apart; None where only building one tells."""
        return None

    def sample(self, count: int, seed: int = 0) -> list[str]:
        """Return `count` different architectures; the same seed gives the same list.

        Raises ValueError when `count` is negative, or more than the space holds or `draw` finds.
        """
        if count < 0 or (self.size is not None and count > self.size):
            holds = "" if self.size is None else f": {self.name} holds {self.size:,}"
            raise ValueError(f"cannot draw {count} different architectures{holds}")
        rng = random.Random(seed)
        drawn: dict[str, None] = {}
        missed = 0
        while len(drawn) < count:
            known = len(drawn)
            drawn[self.draw(rng)] = None
            missed = missed + 1 if len(drawn) == known else 0
            if missed > ATTEMPTS:
                raise ValueError(f"cannot draw {count} different architectures: found only {known} of {self.name}")
        return list(drawn)

    def decisions(self) -> Mapping[str, Choices] | None:
        """Return what an architecture is made of: the choices of each decision by its name, the same for every one.

        A range is a whole number with an order, a tuple are choices without one. Optuna's samplers need it
        (docs/search.md); None where architectures are no such list, and then those that draw and mutate work alone.
        """
        return None

    def from_choices(self, choices: Mapping[str, str | int]) -> str:
        """Return the architecture of one choice for each of `decisions`.

        Raises ArchitectureError where the choices make none, such as a cell whose input leads nowhere.
        """
        raise TypeError(f"{self.name} has no list of decisions")

    def from_row(self, row: Mapping[str, str]) -> str:
        """Return the architecture in a table's row; raises ArchitectureError where no column holds one."""
        for column in ("arch", "architecture"):
            if row.get(column):
                return self.parse(row[column])
        raise ArchitectureError(
            f"the columns {', '.join(row)} hold no architecture of {self.name}; name its column 'arch'"
        )

    def file_name(self, arch: str) -> str:
        """Return a file name for `arch` that any file system takes, different for different architectures."""
        return f"{self.name}-{hashlib.sha256(self.parse(arch).encode()).hexdigest()[:16]}.onnx"


def sizes_of(build: Callable[..., ir.Model]) -> Mapping[str, int]:
    """Return the whole numbers among the keywords of a function that builds networks, with their defaults."""
    parameters = inspect.signature(build).parameters.values()
    return {one.name: one.default for one in parameters if isinstance(one.default, int)}


def check_sizes(**sizes: int) -> None:
    """Raise a ValueError that names the first size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} is {size}; it must be at least 1")
