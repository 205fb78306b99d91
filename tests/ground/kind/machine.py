"""What this machine has."""

from pathlib import Path
from typing import Final

_SYS_RESOURCE: Final = 1 << 24


def has_resource_capability() -> bool:
    """Whether privileged containers can get CAP_SYS_RESOURCE; in many sandboxes they cannot."""
    status = Path("/proc/self/status").read_text()
    bounding = next(line for line in status.splitlines() if line.startswith("CapBnd"))
    return bool(int(bounding.split()[1], 16) & _SYS_RESOURCE)
