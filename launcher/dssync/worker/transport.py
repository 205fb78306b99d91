"""What carries the sums: gloo over host memory, or NCCL over the device's.

``auto`` takes NCCL where the model is on a GPU that this worker has for itself, as all workers of
a launcher do when they are not more than its GPUs; several workers on one GPU get gloo, for which
values are staged through pinned host memory.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dssync.errors import UsageError
from dssync.worker.buckets import HOST
from dssync.worker.communicator import Backend
from dssync.worker.gloo import GlooBackend, GlooSettings
from dssync.worker.link import Setup
from dssync.worker.reaper import Reaper


@dataclass(frozen=True)
class Machine:
    """What a worker finds."""

    gpus: int
    """That this process sees and can use."""
    has_nccl: bool
    """torch was built with it."""
    workers: int
    """Of this launcher."""

    @classmethod
    def look(cls, workers: int) -> "Machine":
        """Return what is there."""
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        return cls(gpus, torch.distributed.is_nccl_available(), workers)


def staging_device(backend: str, devices: Sequence[torch.device], machine: Machine) -> torch.device:
    """Return where values are staged: on the CPU for gloo, on a GPU for NCCL.

    Args:
        backend: ``auto``, ``gloo`` or ``nccl``.
        devices: of the averaged tensors.
        machine: what there is.

    Raises:
        UsageError: NCCL is asked for where it cannot run.
    """
    places = set(devices)
    whole = len(places) == 1 and all(each.type == "cuda" for each in places)
    if backend == "nccl":
        if not machine.gpus:
            raise UsageError(
                "--backend nccl is experimental and needs a GPU, and none is visible here: say gloo"
            )
        if not machine.has_nccl:
            raise UsageError("--backend nccl needs NCCL, and this torch has none: say gloo")
        if not whole:
            raise UsageError(
                "--backend nccl needs the whole model on one GPU, but its tensors are on "
                f"{', '.join(sorted(map(str, places)))}: move it there before GroupSync"
            )
        return places.pop()
    alone = machine.has_nccl and 0 < machine.workers <= machine.gpus
    return places.pop() if backend == "auto" and alone and whole else HOST


def make_backend(
    setup: Setup, device: torch.device, reaper: Reaper, on_hung: Callable[[str], None]
) -> Backend:
    """Return what builds groups for values that are staged on ``device``.

    NCCL's part is imported only where it is used: torch for CPUs has none of it.
    """
    if device == HOST:
        return GlooBackend(setup.member, reaper, GlooSettings(setup.host, setup.interface))
    from dssync.worker.nccl import NcclBackend
    from dssync.worker.ncclgroup import connector

    return NcclBackend(setup.member, reaper, connector(device), on_hung)
