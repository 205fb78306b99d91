"""Runs a DSSyncJob on this machine; the asyncio shell around ``state``.

One task takes events one at a time and does what the state machine wants, in order. That makes
two rules hold without a lock: a pod's uid is in the record's ``gone`` list before its slot is
used again, and the record says how many pods are wanted before any is started or stopped.
"""

import asyncio
import json
import os
import signal
import socket
import uuid
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

from dssync import contract
from dssync.agent.arbiters import FileArbiter
from dssync.control.record import Record
from dssync.errors import UsageError
from dssync.local.failures import Ended
from dssync.local.manifest import Manifest
from dssync.local.plan import Run, pod_spec
from dssync.local.processes import Pod, run_folder, write_token
from dssync.local.state import (
    Effect,
    Event,
    Formed,
    Halted,
    JobState,
    LookAgain,
    Looked,
    Outcome,
    Resize,
    Result,
    Say,
    Scaled,
    Start,
    Started,
    Stop,
)

WATCH_SECONDS = 0.2
Report = Callable[[str], None]


class LocalJob:
    """A job on this machine, from ``async with`` to the end of the block.

    Example::

        async with LocalJob(load(Path("job.yaml")), Path.cwd()) as job:
            job.scale(7)
            outcome = await job.wait()

    Leaving the block ends whatever still runs, at once; ``stop`` and ``wait`` before that drain.
    """

    def __init__(self, manifest: Manifest, folder: Path, report: Report = print) -> None:
        """Prepare; nothing runs yet.

        Args:
            manifest: The job.
            folder: Stands for the working directory of the image.
            report: Takes one line per change of state.
        """
        self._manifest = manifest
        self._folder = folder
        self._report = report
        self._state = JobState(manifest)
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._pods: dict[int, Pod] = {}
        self._watches: set[asyncio.Task[None]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        try:
            uid = str(uuid.uuid4())
            folder = await self._stack.enter_async_context(run_folder(uid))
            self._run = Run(
                uid=uid,
                folder=folder,
                working_directory=self._folder,
                environment=dict(os.environ),
                node_name=socket.gethostname(),
            )
            write_token(self._run.token)
            self._arbiter = FileArbiter(self._run.record)
            await self._update(self._first_values())
        except BaseException:
            await self._stack.aclose()
            raise
        self._main = asyncio.create_task(self._handle_events())
        self._following = asyncio.create_task(self._follow_record())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for task in (self._main, self._following):
            task.cancel()
        await asyncio.gather(self._main, self._following, return_exceptions=True)
        self.kill()
        await asyncio.gather(*self._watches)
        await self._stack.aclose()

    async def wait(self) -> Outcome:
        """Wait until the outcome is known and all pods have ended.

        Raises:
            ArbiterError: The run folder was taken away.
        """
        return await asyncio.shield(self._main)

    def scale(self, desired: int) -> None:
        """Want another number of pods.

        Raises:
            UsageError: The job's range does not allow it.
        """
        low, high = self._manifest.min_replicas, self._manifest.max_replicas
        if not low <= desired <= high:
            raise UsageError(
                f"job {self._manifest.name!r} cannot be scaled to {desired} pods; expected "
                f"{low} to {high}, as spec.elastic says"
            )
        self._events.put_nowait(Scaled(desired))

    def stop(self, reason: str) -> None:
        """Drain all pods; the job ends when they have gone."""
        self._events.put_nowait(Halted(Outcome(Result.DRAINED, reason)))

    def kill(self) -> None:
        """Kill all pods at once."""
        for pod in self._pods.values():
            pod.signal(signal.SIGKILL)

    def signal(self, slot: int, number: int) -> None:
        """Send a signal to the launcher in a slot.

        Raises:
            UsageError: No pod holds the slot.
        """
        if slot not in self._pods:
            raise UsageError(f"no pod holds slot {slot}; expected one of {sorted(self._pods)}")
        self._pods[slot].signal(number)

    @property
    def pids(self) -> Mapping[int, int]:
        """Process ids of the launchers, by slot."""
        return {slot: pod.pid for slot, pod in sorted(self._pods.items())}

    @property
    def arbiter(self) -> FileArbiter:
        """The job's arbiter, for those who want to read its record."""
        return self._arbiter

    async def _handle_events(self) -> Outcome:
        self._events.put_nowait(Started())
        deadline = self._manifest.active_deadline_seconds
        if deadline is not None:
            reason = f"the job ran longer than activeDeadlineSeconds {deadline:g}"
            expired = Halted(Outcome(Result.FAILED, reason))
            timer = self._loop.call_later(deadline, self._events.put_nowait, expired)
            self._stack.callback(timer.cancel)
        while self._state.outcome is None or not self._state.over:
            event = await self._events.get()
            if isinstance(event, Ended):
                event = await self._buried(event)
            for effect in self._state.handle(event, self._loop.time()):
                await self._do(effect)
        return self._state.outcome

    async def _follow_record(self) -> None:
        """Do what ``dssync scale`` wrote into the record, and tell of the first view there."""
        seen, formed = self._manifest.replicas, False
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            record = await self._arbiter.read()
            if not formed and contract.RECORD_VIEW in record.values:
                formed = True
                self._events.put_nowait(Formed())
            desired = int(record.values.get(contract.RECORD_DESIRED, seen))
            if desired != seen:
                seen = desired
                self._events.put_nowait(Scaled(desired))

    async def _do(self, effect: Effect) -> None:
        match effect:
            case Start(slot):
                await self._start(slot)
            case Stop(slot, after_seconds):
                self._pods[slot].stop(after_seconds, self._manifest.grace_seconds)
            case Resize(desired):
                await self._update({contract.RECORD_DESIRED: str(desired)})
            case LookAgain(after_seconds):
                self._loop.call_later(after_seconds, self._events.put_nowait, Looked())
            case Say(text):
                self._report(f"{self._manifest.name}: {text}")

    async def _start(self, slot: int) -> None:
        spec = pod_spec(self._manifest, self._run, slot, str(uuid.uuid4()))
        pod = self._pods[slot] = await Pod.start(spec)
        self._report(f"{self._manifest.name}: pod {slot} started (pid {pod.pid})")
        watch = asyncio.create_task(self._watch(pod))
        self._watches.add(watch)
        watch.add_done_callback(self._watches.discard)

    async def _watch(self, pod: Pod) -> None:
        self._events.put_nowait(await pod.ended())

    async def _buried(self, ended: Ended) -> Ended:
        """Confirm the end of a pod to the launchers, and learn whether the job is completed."""
        uid = self._pods.pop(ended.slot).spec.uid
        record = await self._update({}, gone=uid)
        completed = record.values.get(contract.RECORD_COMPLETED, "")
        return replace(ended, completed=completed not in ("", "false"))

    async def _update(self, values: Mapping[str, str], gone: str | None = None) -> Record:
        """Change the record; again from the start whenever a launcher wrote in between."""
        while True:
            current = await self._arbiter.read()
            merged = {**current.values, **values}
            if gone is not None:
                uids = json.loads(merged.get(contract.RECORD_GONE, "[]"))
                merged[contract.RECORD_GONE] = json.dumps([*uids, gone])
            written = await self._arbiter.swap(current, replace(current, values=merged))
            if written is not None:
                return written

    def _first_values(self) -> Mapping[str, str]:
        return {
            contract.RECORD_DESIRED: str(self._manifest.replicas),
            contract.RECORD_MIN: str(self._manifest.min_replicas),
            contract.RECORD_MAX: str(self._manifest.max_replicas),
        }
