"""Where a launcher finds what its settings name: the arbiter, the job's secret, its own address."""

import asyncio
import ipaddress
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from dssync.agent.arbiters import Arbiter, FileArbiter, StaticArbiter
from dssync.agent.bounded import BoundedArbiter
from dssync.agent.lease import LeaseArbiter
from dssync.agent.naming import address_towards
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.control import messages as m
from dssync.control.address import endpoint_of
from dssync.errors import ArbiterError, UsageError

REACH_SECONDS: Final = 60.0
"""How long a launcher that starts waits: for a name, for the arbiter, for a fixed coordinator."""

LEASE_WATCH_SECONDS: Final = 1.0
"""An API server is asked less often than a file: it has many jobs to answer."""


def read_token(path: Path | None) -> bytes:
    """Return the job's shared secret that a file holds; empty where the job has no file.

    Raises:
        UsageError: the file cannot be read or is empty.
    """
    if path is None:
        return b""
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"token file {path} cannot be read: {error.strerror}") from None
    if not token:
        raise UsageError(f"token file {path} is empty: write the job's shared secret into it")
    return token


def warnings_for(settings: Settings) -> tuple[str, ...]:
    """Return what to say at the start: whether strangers may take part.

    Args:
        settings: with the address of this machine.
    """
    control = settings.control
    if control.token_file is not None or _is_loopback(control.address):
        return ()
    return (
        f"there is no --token-file: whoever reaches {control.address} may join this job, read its "
        "state and end it",
    )


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"


def arbiter_of(settings: Settings) -> Arbiter:
    """Return the arbiter that the settings name; a launcher that is alone is its own."""
    control = settings.control
    if control.arbiter == "file":
        return BoundedArbiter(FileArbiter(Path(control.arbiter_target)))
    if control.arbiter == "lease":
        return BoundedArbiter(LeaseArbiter(settings.job.namespace, control.arbiter_target))
    if not control.arbiter_target:
        return StaticArbiter(control.address, 0, is_host=True)
    # A host that comes back finds members of its earlier life, which its next term must be above.
    began = int(time.time())
    return StaticArbiter(*endpoint_of(control.arbiter_target), settings.job.slot == 0, began)


async def read_patiently(arbiter: Arbiter, reporter: Reporter) -> None:
    """Read the record; a pod may start while the API server does.

    Raises:
        ArbiterError: It could not be read for ``REACH_SECONDS``.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + REACH_SECONDS
    while True:
        try:
            await arbiter.read()
            return
        except ArbiterError as error:
            if loop.time() > give_up:
                raise
            reporter.log("waiting", arbiter=f"{error}")
        await asyncio.sleep(LEASE_WATCH_SECONDS)


def port_of(settings: Settings) -> int:
    """Return where to listen: a static endpoint's port, or a pod's own; else an ephemeral one."""
    control = settings.control
    if control.arbiter == "lease":
        return control.port
    if control.arbiter == "static" and settings.job.slot == 0 and control.arbiter_target:
        return endpoint_of(control.arbiter_target)[1]
    return 0


async def with_address(settings: Settings, reporter: Reporter) -> Settings:
    """Return settings that say this machine's address: the one towards the static endpoint.

    Raises:
        UsageError: The endpoint's name stayed unknown, or there was no way to it.
    """
    control = settings.control
    if control.address or control.arbiter != "static" or not control.arbiter_target:
        return settings
    host, port = endpoint_of(control.arbiter_target)
    address = await address_towards(
        host, port, lambda why: reporter.log("waiting", host=host, reason=repr(why)), REACH_SECONDS
    )
    return replace(settings, control=replace(control, address=address))


def hello_of(settings: Settings) -> m.Hello:
    """Return what introduces this launcher to the coordinator."""
    job = settings.job
    place = ("", "", job.node_name)
    if job.topology:
        zone, rack, node = (*job.topology.split("/"), "", "")[:3]
        place = (zone, rack, node)
    return m.Hello(job.slot, job.pod_uid, settings.world.nproc_per_node, place)
