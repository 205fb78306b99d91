"""What the kernel tells of a process: whether it lives, since when, and what it has used."""

import math
import os
import select
import time
from pathlib import Path


def wait_gone(pids: set[int], within_seconds: float) -> set[int]:
    """Return those of the processes that still live after the time."""
    deadline = time.monotonic() + within_seconds
    alive = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except (ProcessLookupError, FileNotFoundError):
            # The latter: a thread has the number now.
            continue
        left = max(0.0, deadline - time.monotonic())
        if not select.select([descriptor], [], [], left)[0]:
            alive.add(pid)
        os.close(descriptor)
    return alive


def start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; tells a reused id apart."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def cpu_ticks(pid: int) -> int:
    """Return the processor time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def began_seconds(pid: int) -> float:
    """Return when a process started, on the monotonic clock; never if it is gone."""
    try:
        return int(start_time(pid)) / os.sysconf("SC_CLK_TCK")
    except FileNotFoundError:
        return math.inf
