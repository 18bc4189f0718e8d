"""Reads what the machine is, and the libraries that are installed."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PACKAGES = ("epsinas-onnx", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "matplotlib",
            "plotly", "pillow", "numba", "torch", "ray")  # fmt: skip


def packages() -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def platform_text() -> str:
    """Return Python, system and processor in one line."""
    return f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {_processor()}"


def blas() -> list[Mapping[str, object]]:
    """Return the libraries of linear algebra that NumPy and others loaded, with their threads."""
    from threadpoolctl import threadpool_info

    keys = ("internal_api", "version", "num_threads", "architecture")
    return [{key: one.get(key) for key in keys} for one in threadpool_info() if one.get("user_api") == "blas"]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
