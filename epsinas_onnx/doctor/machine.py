"""Reads what the machine gives this process: cores and quotas, memory, and the libraries that are installed."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")
PACKAGES = ("epsinas-onnx", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu", "numpy", "scipy", "matplotlib",
            "plotly", "pillow", "torch", "ray")  # fmt: skip


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


def cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quota() -> float | None:
    """Return how many cores' time a container's limit leaves, None without one."""
    try:
        allowed, period = _QUOTA.read_text().split()
    except (OSError, ValueError):
        try:
            allowed, period = (path.read_text().strip() for path in _OLD_QUOTA)
        except OSError:
            return None
    try:
        limit = int(allowed) / int(period)
    except (ValueError, ZeroDivisionError):  # "max"
        return None
    return limit if limit > 0 else None


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
