"""Writes docs/notebook.ipynb with what its cells show when they are run: `python docs/notebook.py`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

TARGET = Path(__file__).with_suffix(".ipynb")
CELLS = (
    "# epsinas-onnx in a notebook\n\n"
    "Run it in the repository's folder, where `pip install '.[cpu]' pandas` has what it needs.",
    "from epsinas_onnx import diff, inspect, rank, score, score_many, to_dataframe\n\n"
    'score("models/nb201-p-c1-s-c1-s-s.onnx", batch=16)',
    "What scoring will do with a model:",
    'inspect("models/lstm.onnx")',
    "What changed between two models:",
    'diff("models/nb201-p-s-n-n-n-s.onnx", "models/nb201-s-s-s-s-s-s.onnx", with_score=False)',
    "A set in order, by two counts:",
    'models = ["models/mlp.onnx", "models/lstm.onnx", "models/nb201-s-s-s-s-s-s.onnx"]\n'
    'rank(models, by="params,macs", batch=16)',
    "Scores as a data frame:",
    "found = to_dataframe(score_many(models, batch=16))\n"
    'print(found[["model", "status", "parameters"]].to_string(index=False))',
)
"""Text and code in turn."""


def executed(folder: Path) -> nbformat.NotebookNode:
    """Return the notebook, run in a folder, without what differs from run to run."""
    cells = [
        (nbformat.v4.new_code_cell if index % 2 else nbformat.v4.new_markdown_cell)(text, id=f"cell-{index}")
        for index, text in enumerate(CELLS)
    ]
    notebook = nbformat.v4.new_notebook(cells=cells)
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("language_info", None)
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(TARGET.parents[1]), TARGET)
