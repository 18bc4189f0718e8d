"""Writes what matplotlib drew, the same bytes for the same picture."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from epsinas_onnx._util.install import pip_install
from epsinas_onnx.errors import UsageError
from epsinas_onnx.output.files import write_output

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Dates in the files would make equal pictures differ.
_METADATA: dict[str, dict[str, Any]] = {".png": {}, ".pdf": {"CreationDate": None}, ".svg": {"Date": None}}

STATIC = tuple(_METADATA)
"""The endings of pictures."""


def check_picture(path: Path) -> None:
    """Raise UsageError for a file whose ending says no format of a picture."""
    *endings, last = STATIC
    if path.suffix.lower() not in STATIC:
        raise UsageError(f"{path}: a plot is a {', '.join(endings)} or {last} file")


def write_picture(path: Path, draw: Callable[[], Figure]) -> None:
    """Write what `draw` returns into `path`, whose ending says the format.

    Raises UsageError for an ending that is none, and where matplotlib is missing; OutputError where the file cannot be
    written.
    """
    check_picture(path)
    ending = path.suffix.lower()
    try:
        import matplotlib as mpl

        picture = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": "epsinas", "font.size": 9, "axes.axisbelow": True}):
            draw().savefig(picture, format=ending[1:], dpi=200, metadata=_METADATA[ending])
    except ImportError as error:
        raise UsageError(f"plots need {error.name}; run '{pip_install('plots')}'") from None
    write_output(path, picture.getvalue())
