"""Searches a space by training-free scores: `Search`, `objective` for an Optuna study of one's own, and `scorer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from epsinas_onnx.search.latency import LatencySettings
    from epsinas_onnx.search.own import objective, scorer
    from epsinas_onnx.search.results import SearchResult, Tried
    from epsinas_onnx.search.searching import Proposal, Search
    from epsinas_onnx.search.strategy import Strategy

_HOME = {
    "LatencySettings": "latency",
    "Proposal": "searching",
    "Search": "searching",
    "SearchResult": "results",
    "Strategy": "strategy",
    "Tried": "results",
    "objective": "own",
    "scorer": "own",
}

__all__ = ["LatencySettings", "Proposal", "Search", "SearchResult", "Strategy", "Tried", "objective", "scorer"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
