"""What the machine says where the user left it open, found without importing torch."""

import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path


def cpu_count() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def gpu_count(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """Return the number of NVIDIA GPUs that a process with this environment would see."""
    present = sum(1 for entry in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", entry.name))
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or present == 0:
        return present
    # Entries may be UUIDs, or slices of a GPU of which there are more than devices.
    return len([entry for entry in visible.split(",") if entry.strip() not in ("", "-1")])


def interfaces() -> tuple[str, ...]:
    """Return the names of this machine's network interfaces."""
    return tuple(name for _, name in socket.if_nameindex())
