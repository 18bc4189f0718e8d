"""Scores of NAS-Bench-201 order networks as the table of NAS-Bench-Suite-Zero does."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from epsinas_exporters.spaces.nasbench201 import build
from epsinas_onnx.proxies.measure import measure

TABLE = Path(__file__).parents[1] / "data" / "nasbench201_other_proxies.csv"
COLUMNS = {"params": "params", "macs": "flops", "nwot": "nwot", "zen": "zen"}


@pytest.mark.slow
def test_ranks_agree_with_the_published_columns() -> None:
    stats = pytest.importorskip("scipy.stats")
    with TABLE.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [measure(build(row["arch"], classes=10), list(COLUMNS), threads=1) for row in rows]
    for index, (name, column) in enumerate(COLUMNS.items()):
        ours = [one[index].value for one in found]
        assert None not in ours, [one[index].reason for one in found]
        agreement = stats.spearmanr(ours, [float(row[column]) for row in rows]).statistic
        assert agreement > 0.9, f"{name}: {agreement:.3f}"
