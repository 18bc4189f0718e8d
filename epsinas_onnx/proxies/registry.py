"""Knows the scores by name: those of this package, and those that others add through an entry point.

A package adds a score with an entry point of the group `epsinas_onnx.proxies` that names a subclass of `Proxy`:

    [project.entry-points."epsinas_onnx.proxies"]
    mine = "my_package.scores:Mine"
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from epsinas_onnx.errors import UsageError
from epsinas_onnx.proxies.proxy import Proxy

ENTRY_POINTS = "epsinas_onnx.proxies"

BUILT_IN = {
    "params": "counts:Params",
    "macs": "counts:Macs",
    "depth": "counts:Depth",
    "relu_units": "counts:ReluUnits",
    "order": "order:Order",
    "synflow": "synflow:Synflow",
    "nwot": "nwot:Nwot",
    "jacov": "jacov:Jacov",
    "swap": "swap:Swap",
    "meco": "meco:Meco",
    "zen": "zen:Zen",
    "expressivity": "spectra:Expressivity",
    "progressivity": "spectra:Progressivity",
}
"""Where each score of this package is, `MODULE:CLASS` in this folder, in the order of records."""


def proxy_names() -> tuple[str, ...]:
    """Return the names of all scores, those of this package first."""
    return (*BUILT_IN, *(name for name in sorted(_added()) if name not in BUILT_IN))


def find_proxy(name: str) -> type[Proxy]:
    """Return the score of a name; its module is imported now.

    Raises UsageError where there is none, or what another package added cannot be loaded or is no `Proxy`.
    """
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        found = getattr(import_module(f"epsinas_onnx.proxies.{module}"), attribute)
    elif name in _added():
        found = _load(_added()[name])
    else:
        raise UsageError(f"there is no score {name!r}; there are {', '.join(proxy_names())}")
    if not (isinstance(found, type) and issubclass(found, Proxy)):
        raise UsageError(f"the entry point {name!r} of the group {ENTRY_POINTS!r} is no subclass of Proxy")
    if getattr(found, "name", None) != name:
        raise UsageError(
            f"the entry point {name!r} of the group {ENTRY_POINTS!r} names a score that calls itself "
            f"{getattr(found, 'name', None)!r}; the two must be equal, since records and columns are found by that name"
        )
    return found


def find_proxies(names: str | Sequence[str] | None = None) -> tuple[type[Proxy], ...]:
    """Return scores by name, each once, all of them for None; raises UsageError as `find_proxy` does."""
    wanted = (names,) if isinstance(names, str) else proxy_names() if names is None else names
    return tuple(find_proxy(name) for name in dict.fromkeys(wanted))


@cache
def _added() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _load(entry: EntryPoint) -> object:
    try:
        return entry.load()
    except Exception as error:  # whatever a foreign module does when it is imported
        raise UsageError(f"the score {entry.name!r} cannot be loaded from {entry.value!r}: {error}") from error
