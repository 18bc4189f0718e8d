"""The figures of the epsinas paper (Gracheva, Artificial Intelligence Review 58, 2025, arXiv 2302.04406), by space."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PaperFigures:
    """What the paper reports for one space and task.

    columns: regular expression that the names of columns with accuracies on this task match. values: by the field
    names of `Ranking`. remark: what the paper's figures were computed with and against.
    """

    space: str
    columns: str
    values: Mapping[str, float] = field(hash=False)
    remark: str


_FIGURES = (
    PaperFigures(
        "nasbench201", r"(?!.*epsinas)cifar-?10(?!\d)",
        {"spearman": 0.87, "kendall": 0.69, "top_spearman": 0.50, "top_share": 0.67, "best": 62.0},
        "256 images of CIFAR-10, against test accuracy, over the architectures that were scored",
    ),
    PaperFigures(
        "nasbench101", "(?!.*epsinas).*acc", {"spearman": 0.62, "kendall": 0.44},
        "against test accuracy, over the whole space",
    ),
    PaperFigures(
        "nasbenchnlp", "(?!.*epsinas).*loss", {"spearman": -0.34}, "against the loss on Penn Treebank's test part",
    ),
)  # fmt: skip


def paper_figures(space: str, column: str) -> PaperFigures | None:
    """Return the paper's figures for a space and an accuracy column; None where the paper has none."""
    return next((f for f in _FIGURES if f.space == space and re.match(f.columns, column.lower())), None)
