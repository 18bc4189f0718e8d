"""The search spaces of benchmarks: `get` one by its name, `names` lists them, `Network` is one architecture of one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points

import onnx_ir as ir

from epsinas_exporters.spaces.base import ArchitectureError, Choices, Counts, Defaults, NotEnumerable, SearchSpace

__all__ = [
    "ENTRY_POINTS",
    "ArchitectureError",
    "Choices",
    "Counts",
    "Defaults",
    "Network",
    "NotEnumerable",
    "SearchSpace",
    "get",
    "names",
]

ENTRY_POINTS = "epsinas_exporters.spaces"
"""The entry point group through which packages add spaces, this one included."""


@dataclass(frozen=True)
class Network:
    """One architecture of one space by their names, built where it is scored, another process included."""

    space: str
    arch: str

    @property
    def name(self) -> str:
        """Return the architecture, by which the result is known."""
        return self.arch

    @property
    def family(self) -> str:
        """Return what it has in common with all networks of its space that compute the same (`SearchSpace.family`)."""
        return get(self.space).family(self.arch)

    @property
    def store_key(self) -> str:
        """Return what it is known by in a store of results: its name, and the version of the package with its space."""
        return f"{_package(self.space)}\n{self.arch}"

    def counts(self) -> Counts | None:
        """Return its size, where that is known without building it."""
        return get(self.space).counts(self.arch)

    def live(self) -> Live:
        """Return the same without what its output does not depend on, or has twice."""
        return Live(self.space, self.arch)

    def build(self) -> ir.Model:
        """Return the network."""
        return get(self.space).build(self.arch)


class Live(Network):
    """One architecture without what its output does not depend on, or has twice (`SearchSpace.build_live`)."""

    def build(self) -> ir.Model:
        """Return the network."""
        return get(self.space).build_live(self.arch)


def names() -> list[str]:
    """Return the names of all installed spaces."""
    return sorted(_entries())


@cache
def get(name: str) -> SearchSpace:
    """Return the space called `name`; raises LookupError with the known names where there is none.

    A space of another package that cannot be loaded raises LookupError, too.
    """
    entry = _entries().get(name)
    if entry is None:
        raise LookupError(f"there is no search space {name!r}; known are {', '.join(names())}")
    try:
        loaded = entry.load()
        space = loaded() if isinstance(loaded, type) else loaded
    except Exception as error:  # another package's code
        raise LookupError(f"the search space {name!r} of {entry.value} cannot be loaded: {error}") from error
    if not isinstance(space, SearchSpace):
        raise LookupError(f"the search space {name!r} ({entry.value}) is no epsinas_exporters.spaces.SearchSpace")
    return space


@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


@cache
def _package(space: str) -> str:
    """Return the package that a space comes from, and its version."""
    entry = _entries().get(space)
    return "" if entry is None or entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
