"""Which version this is, said nowhere else, and the versions of the libraries that decide a score."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

__version__ = "0.1.0"


@cache
def versions() -> Mapping[str, str]:
    """Return the versions of this package and of the libraries that decide a score."""
    from importlib import metadata  # half as long as the import of the whole package, which needs none of it

    found = {"epsinas-onnx": __version__}
    for package in ("onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
