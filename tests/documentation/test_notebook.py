"""The notebook of the documentation is run, and shows what it holds."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from tests.documentation.compare import differs

DOCS = Path(__file__).parents[2] / "docs"


def shown(notebook: Any) -> list[str]:
    """Return what the cells of a notebook show, as text."""
    return [
        str(one.get("text") or one["data"].get("text/html") or one["data"]["text/plain"])
        for cell in notebook.cells if cell.cell_type == "code" for one in cell.outputs
    ]  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_notebook_shows_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    for needed in ("nbclient", "ipykernel", "pandas"):
        pytest.importorskip(needed)
    import nbformat

    monkeypatch.syspath_prepend(str(DOCS))
    kept = nbformat.read(DOCS / "notebook.ipynb", as_version=4)
    run = importlib.import_module("notebook").executed(DOCS.parent)
    assert [cell.source for cell in run.cells] == [cell.source for cell in kept.cells]
    assert len(shown(run)) == len(shown(kept)) == 5
    for now, then in zip(shown(run), shown(kept), strict=True):
        assert differs(now, then) is None
