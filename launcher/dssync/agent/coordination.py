"""Who coordinates: this launcher or another one, and the watch over the arbiter's record.

The first launcher that swaps itself into the empty cell hosts the coordinator; the others find
its address in the record. There is no take-over yet: a job whose coordinator is lost ends.
"""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

from dssync import contract
from dssync.agent.arbiters import Arbiter, FileArbiter, Record, StaticArbiter
from dssync.agent.host import CoordinatorHost
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.agent.uplink import Handlers, LocalUplink, RemoteUplink, Uplink
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings, Note, Resized
from dssync.errors import UsageError

WATCH_SECONDS = 0.2
FIND_SECONDS = 0.05
LINGER_SECONDS = 10.0
"""How long a coordinator stays for launchers that have not left after completion."""


class Coordination:
    """Opens this launcher's uplink, and hosts the coordinator if it falls to this launcher."""

    def __init__(self, settings: Settings, hello: m.Hello, reporter: Reporter) -> None:
        self._settings = settings
        self._hello = hello
        self._reporter = reporter
        self._arbiter = arbiter_of(settings)
        self._host: CoordinatorHost | None = None
        self._uplink: Uplink | None = None
        self._watch: asyncio.Task[None] | None = None
        self._completed = False

    async def open(self, handlers: Handlers) -> Uplink:
        """Return the way to the coordinator, which may be in this process.

        Raises:
            UsageError: the port is in use.
        """
        host = await self._try_to_host()
        if host is None:
            self._uplink = RemoteUplink(
                self._find, read_token(self._settings), self._hello, handlers
            )
        else:
            self._uplink = LocalUplink(host, self._hello, handlers.deliver)
        return self._uplink

    async def until_unneeded(self, leave: asyncio.Event) -> None:
        """Stay as long as other launchers need the coordinator that runs here."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + LINGER_SECONDS
        while self._host is not None and self._host.others and not leave.is_set():
            if self._completed and loop.time() > give_up:
                return
            await asyncio.sleep(FIND_SECONDS)

    def measure(self) -> None:
        """Show the members, where the coordinator runs."""
        if self._host is not None:
            self._reporter.census(self._host.census, self._host.view_sequence)

    async def close(self) -> None:
        """End connections, server and watch."""
        if self._watch is not None:
            self._watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watch
        if self._completed and self._arbiter is not None:
            await record_completed(self._arbiter)
        if self._uplink is not None:
            await self._uplink.close()
        if self._host is not None:
            await self._host.close()

    async def _try_to_host(self) -> CoordinatorHost | None:
        """Become coordinator if the cell is empty; None if somebody else is or was faster."""
        record = await self._arbiter.read() if self._arbiter is not None else Record()
        if record.holder:
            return None
        term = record.term + 1
        host = CoordinatorHost(
            Coordinator(term, self._control_settings(record)),
            read_token(self._settings),
            self._note,
        )
        try:
            address = await host.start(self._settings.control.address, self._port())
        except OSError as error:
            raise UsageError(
                f"the control plane cannot listen on {self._settings.control.address} port "
                f"{self._port()}: {error.strerror}; choose a free port or end what uses it"
            ) from None
        values = {**record.values, contract.RECORD_ADDRESS: address}
        mine = Record(holder=self._hello.pod_uid, term=term, values=values)
        if self._arbiter is not None:
            written = await self._arbiter.swap(record, mine)
            if written is None:
                await host.close()
                return None
            self._watch = asyncio.create_task(self._follow_record(self._arbiter, written))
        self._reporter.log("coordinating", slot=self._hello.slot, address=address, term=term)
        self._host = host
        return host

    def _port(self) -> int:
        """The fixed port of a static endpoint; any other arbiter publishes an ephemeral one."""
        static = isinstance(self._arbiter, StaticArbiter)
        return int(self._settings.control.arbiter_target.rpartition(":")[2]) if static else 0

    def _control_settings(self, record: Record) -> ControlSettings:
        world, control = self._settings.world, self._settings.control
        settings = ControlSettings(
            desired=world.desired,
            minimum=world.min,
            join_window_seconds=world.join_window_seconds,
            lease_seconds=control.lease_seconds,
        )
        desired, minimum = _sizes(record, settings.desired, settings.minimum)
        return replace(settings, desired=desired, minimum=minimum)

    async def _find(self) -> str:
        """Return the coordinator's address as the arbiter knows it now."""
        record = await self._arbiter.read() if self._arbiter is not None else Record()
        return record.values.get(contract.RECORD_ADDRESS, "")

    async def _follow_record(self, arbiter: Arbiter, record: Record) -> None:
        """Pass on what the operator writes, and write what the coordinator decides."""
        sizes = _sizes(record, self._settings.world.desired, self._settings.world.min)
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            record = await arbiter.read()
            current = _sizes(record, *sizes)
            if current != sizes and self._host is not None:
                self._host.handle(Resized(*current))
                sizes = current
            if self._completed:
                await record_completed(arbiter)
                return

    def _note(self, note: Note) -> None:
        if note.kind == "completed":
            self._completed = True
        self._reporter.note(note)


async def record_completed(arbiter: Arbiter) -> None:
    """Write into the record that the job is done, whoever else writes meanwhile."""
    record = await arbiter.read()
    while contract.RECORD_COMPLETED not in record.values:
        values = {**record.values, contract.RECORD_COMPLETED: "true"}
        await arbiter.swap(record, replace(record, values=values))
        record = await arbiter.read()


def read_token(settings: Settings) -> bytes:
    """Return the job's shared secret; empty where the job has none.

    Raises:
        UsageError: the file cannot be read or is empty.
    """
    path = settings.control.token_file
    if path is None:
        return b""
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise UsageError(f"token file {path} cannot be read: {error.strerror}") from None
    if not token:
        raise UsageError(f"token file {path} is empty: write the job's shared secret into it")
    return token


def arbiter_of(settings: Settings) -> Arbiter | None:
    """Return the arbiter that the settings name; None for a launcher that is alone."""
    control = settings.control
    if not control.arbiter_target:
        return None
    if control.arbiter == "file":
        return FileArbiter(Path(control.arbiter_target))
    host, _, port = control.arbiter_target.rpartition(":")
    return StaticArbiter(host, int(port), settings.job.slot == 0)


def _sizes(record: Record, desired: int, minimum: int) -> tuple[int, int]:
    values = record.values
    return (
        int(values.get(contract.RECORD_DESIRED, desired)),
        int(values.get(contract.RECORD_MIN, minimum)),
    )
