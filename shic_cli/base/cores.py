"""How many cores this process may use."""

from __future__ import annotations

import os


def cores() -> int:
    """The number of cores that this process may use, at least 1.

    These are the cores that the system allows it (its affinity), but no more than OMP_NUM_THREADS where that
    is set, as torchrun does, and no more than the CPU limit of its container.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    asked = os.environ.get("OMP_NUM_THREADS", "").split(",")[0]
    limits = [allowed, _quota(), *([int(asked)] if asked.isdecimal() else [])]
    return max(1, min(limits))


def _quota() -> int:
    """The cores that the control group grants, rounded up; more than there can be if there is no limit."""
    try:
        with open("/sys/fs/cgroup/cpu.max") as file:
            quota, period = file.read().split()
        return -(-int(quota) // int(period))
    except (OSError, ValueError):  # no such file, or `max`
        return 1 << 20
