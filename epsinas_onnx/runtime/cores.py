"""Reads how many cores this process may use: those that it may run on, and the time that a container's limit leaves."""

from __future__ import annotations

import os
from pathlib import Path

_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_OLD_QUOTA = Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"), Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us")


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


def usable_cores() -> int:
    """Return how many processes can run at full speed at a time, at least one."""
    limit = quota()
    return cores() if limit is None else max(1, min(cores(), int(limit)))
