"""The figures of the epsinas paper (Gracheva, Artificial Intelligence Review 58, 2025, arXiv 2302.04406), by space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class PaperFigures:
    """What the paper reports for one space and task.

    columns: shell glob over the names of accuracy columns that hold this task. values: by the field names of `Ranking`.
    remark: how the paper's setting differs from what a table here may hold.
    """

    space: str
    columns: str
    values: Mapping[str, float] = field(hash=False)
    remark: str


_FIGURES = (
    PaperFigures(
        "nasbench201", "cifar10*",
        {"spearman": 0.87, "kendall": 0.69, "top_spearman": 0.50, "top_share": 0.67, "best": 62.0},
        "256 images of CIFAR-10, over the architectures that were scored",
    ),
    PaperFigures(
        "nasbench101", "*acc*", {"spearman": 0.62, "kendall": 0.44}, "against test accuracy, over the whole space",
    ),
    PaperFigures("nasbenchnlp", "*loss*", {"spearman": -0.34}, "against the loss on Penn Treebank's test part"),
)  # fmt: skip


def paper_figures(space: str, column: str) -> PaperFigures | None:
    """Return the paper's figures for a space and an accuracy column; None where the paper has none."""
    return next((f for f in _FIGURES if f.space == space and fnmatchcase(column.lower(), f.columns)), None)
