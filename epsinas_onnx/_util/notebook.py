"""How a notebook shows a result: it asks the result itself, which hands the question to `report`."""

from __future__ import annotations

from importlib import import_module


class ShownInNotebook:
    """A result that a notebook shows as HTML, and everything else as text.

    Results lie below `report`, which knows how they are written; this is the one call upwards, made by name when a
    notebook asks.
    """

    def _repr_html_(self) -> str:
        text: str = import_module("epsinas_onnx.report.notebook").to_html(self)
        return text
