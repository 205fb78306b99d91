"""Proof that another launcher's process has ended, where it can be had: on its own machine.

A process is named by machine, pid namespace, process id and start time, so that neither a reused
id nor a container with its own numbering is taken for it. A closed connection proves nothing, and
neither does a lock, which a forked child may have inherited.
"""

import os
from pathlib import Path

_ENDED = ("Z", "X")
"""States of a process that will not run again, whoever has still to collect it."""


def own_process() -> str:
    """Return the name of this process."""
    pid = os.getpid()
    return f"{_machine()}/{pid}/{_start_time(pid)}"


def has_ended(process: str) -> bool:
    """Tell whether a process has certainly ended; False for one of another machine."""
    machine, _, rest = process.rpartition("/")[0].rpartition("/")
    start = process.rpartition("/")[2]
    if not machine or machine != _machine() or not rest.isascii() or not rest.isdigit():
        return False
    return _start_time(int(rest)) != start


def _machine() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespace = os.stat("/proc/self/ns/pid").st_ino
    return f"{boot}.{namespace}"


def _start_time(pid: int) -> str:
    """Return when a process started, in the kernel's ticks; empty if it does not run any more."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in _ENDED else fields[19]
