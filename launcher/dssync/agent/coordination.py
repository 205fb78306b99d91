"""Who coordinates: this launcher or another one, and the watch over the arbiter's record.

The first launcher that swaps itself into the empty cell hosts the coordinator; the others find
its address in the record. There is no take-over yet: a job whose coordinator is lost ends.
"""

import asyncio
import contextlib
from pathlib import Path

from dssync import contract
from dssync.agent.arbiters import Arbiter, FileArbiter, Record, StaticArbiter
from dssync.agent.console import Console
from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.agent.lease import LeaseArbiter
from dssync.agent.recorder import Recorder, Sizes
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.agent.uplink import Handlers, LocalUplink, RemoteUplink, Uplink
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings, Note, Resized
from dssync.errors import ArbiterError, UsageError

WATCH_SECONDS = 0.2
LEASE_WATCH_SECONDS = 1.0
"""An API server is asked less often than a file: it has many jobs to answer."""
FIND_SECONDS = 0.05
REACH_SECONDS = 60.0
"""How long a launcher that starts waits for the arbiter."""
LINGER_SECONDS = 10.0
"""How long a coordinator stays for launchers that have not left after completion."""


class Coordination:
    """Opens this launcher's uplink, and hosts the coordinator if it falls to this launcher."""

    def __init__(self, settings: Settings, hello: m.Hello, reporter: Reporter) -> None:
        self._settings = settings
        self._hello = hello
        self._reporter = reporter
        self._arbiter = arbiter_of(settings)
        self._console = Console(settings, reporter, self._arbiter)
        self._door = Door(self._console.respond)
        self._host: CoordinatorHost | None = None
        self._uplink: Uplink | None = None
        self._recorder: Recorder | None = None
        self._recording: asyncio.Task[None] | None = None
        self._completed = False

    async def open(self, handlers: Handlers) -> Uplink:
        """Return the way to the coordinator, which may be in this process.

        Raises:
            UsageError: the port is in use.
        """
        token = read_token(self._settings)
        await self._door.open(self._settings.control.address, self._port(), token)
        self._reporter.log("listening", slot=self._hello.slot, address=self._door.address)
        host = await self._try_to_host()
        if host is None:
            self._uplink = RemoteUplink(self._find, token, self._hello, handlers)
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
        """End connections, server and recorder."""
        if self._recording is not None:
            self._recording.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._recording
        if self._completed and self._recorder is not None:
            await self._finish(self._recorder)
        if self._uplink is not None:
            await self._uplink.close()
        await self._door.close()
        if self._host is not None:
            await self._host.close()

    async def _try_to_host(self) -> CoordinatorHost | None:
        """Become coordinator if the cell is empty; None if somebody else is or was faster."""
        record = await self._read_patiently()
        if record.holder:
            return None
        term, address = record.term + 1, self._door.address
        coordinator = Coordinator(term, self._control_settings(record))
        host = self._door.launchers = CoordinatorHost(coordinator, self._note)
        host.start()
        values = {**record.values, contract.RECORD_ADDRESS: address}
        mine = Record(holder=self._hello.pod_uid, term=term, values=values)
        if self._arbiter is not None:
            written = await self._arbiter.swap(record, mine)
            if written is None:
                self._door.launchers = None
                await host.close()
                return None
            self._record(self._arbiter, written, host)
        self._reporter.log("coordinating", slot=self._hello.slot, address=address, term=term)
        self._host = self._console.host = host
        return host

    def _port(self) -> int:
        """The port of a static endpoint, on its host; else the launcher's own."""
        control = self._settings.control
        if isinstance(self._arbiter, StaticArbiter) and self._hello.slot == 0:
            return int(control.arbiter_target.rpartition(":")[2])
        return control.port

    def _control_settings(self, record: Record) -> ControlSettings:
        world, control = self._settings.world, self._settings.control
        sizes = Sizes(world.desired, world.min).updated(record)
        return ControlSettings(
            desired=sizes.desired,
            minimum=sizes.minimum,
            join_window_seconds=world.join_window_seconds,
            lease_seconds=control.lease_seconds,
        )

    async def _find(self) -> str:
        """Return the coordinator's address as the arbiter knows it now."""
        record = await self._arbiter.read() if self._arbiter is not None else Record()
        return record.values.get(contract.RECORD_ADDRESS, "")

    async def _read_patiently(self) -> Record:
        """Read the record; a pod may start while the API server does.

        Raises:
            ArbiterError: It could not be read for ``REACH_SECONDS``.
        """
        if self._arbiter is None:
            return Record()
        loop = asyncio.get_running_loop()
        give_up = loop.time() + REACH_SECONDS
        while True:
            try:
                return await self._arbiter.read()
            except ArbiterError as error:
                if loop.time() > give_up:
                    raise
                self._reporter.log("waiting", arbiter=f"{error}")
            await asyncio.sleep(LEASE_WATCH_SECONDS)

    def _record(self, arbiter: Arbiter, mine: Record, host: CoordinatorHost) -> None:
        lease = self._settings.control.arbiter == "lease"
        self._recorder = Recorder(
            arbiter,
            mine,
            lambda: host.entries,
            lambda sizes: host.handle(Resized(sizes.desired, sizes.minimum)),
            LEASE_WATCH_SECONDS if lease else WATCH_SECONDS,
        )
        self._recording = asyncio.create_task(self._recorder.run())

    async def _finish(self, recorder: Recorder) -> None:
        try:
            await recorder.finish()
        except ArbiterError as error:
            self._reporter.log("unrecorded", completed=True, arbiter=f"{error}")

    def _note(self, note: Note) -> None:
        if note.kind == "completed":
            self._completed = True
        self._reporter.note(note)


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
    if control.arbiter == "lease":
        return LeaseArbiter(settings.job.namespace, control.arbiter_target)
    host, _, port = control.arbiter_target.rpartition(":")
    return StaticArbiter(host, int(port), settings.job.slot == 0)
