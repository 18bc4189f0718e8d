"""The command line of scripts that export with one framework at a time."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path


def export_kind(kinds: Mapping[str, Callable[[Path], None]], description: str | None) -> None:
    """Export with the kind that the command line names, into the folder that it names."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=kinds)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    kinds[options.kind](options.out)
