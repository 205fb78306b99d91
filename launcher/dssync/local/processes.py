"""Processes and files of a local job: started here, and gone when the job is over.

That nothing is left is promised by a janitor, a shell that waits for the end of its standard
input. The kernel closes that in any case, also when this process is killed. What it clears are
the run folder and every process that carries the job's uid in its environment, as whoever is in
a container's cgroup ends with the container: launchers and workers die with their parents anyway,
what a script daemonised does not.
"""

import asyncio
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from dssync import contract
from dssync.agent.child import signal_child
from dssync.local.failures import Ended
from dssync.local.plan import PodSpec

_JANITOR: Final = """
read _
while left=$(grep -lszx -- "$1" /proc/[0-9]*/environ | cut -d/ -f3); test "$left"; do
    kill -9 $left 2> /dev/null
    sleep 0.02
done
until rm -rf -- "$0"; do sleep 0.02; done
"""


class Pod:
    """A launcher process in the place of a pod."""

    def __init__(self, spec: PodSpec, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.pid = process.pid
        self._process = process
        self._timers: list[asyncio.TimerHandle] = []

    @classmethod
    async def start(cls, spec: PodSpec) -> "Pod":
        """Start the process of a pod; it dies with the calling thread."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "dssync.local.pod", str(os.getpid()), *spec.command),
            env=spec.environment,
            cwd=spec.working_directory,
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the job, which drains its pods
        )
        return cls(spec, process)

    async def ended(self) -> Ended:
        """Wait for the end of the process and return what it says of itself."""
        returncode = await self._process.wait()
        for timer in self._timers:
            timer.cancel()
        verdict = await asyncio.to_thread(_read_verdict, self.spec.termination_log)
        name, reason = (str(verdict.get(key, "")) for key in ("verdict", "reason"))
        return Ended(self.spec.slot, returncode, name, reason)

    def signal(self, number: int) -> None:
        """Send a signal to the launcher; nothing happens if it has ended."""
        signal_child(self._process, number)

    def stop(self, after_seconds: float, grace_seconds: float) -> None:
        """Send SIGTERM after a while, and SIGKILL at the end of the grace period."""
        loop = asyncio.get_running_loop()
        self._timers += [
            loop.call_later(after_seconds, self.signal, signal.SIGTERM),
            loop.call_later(after_seconds + grace_seconds, self.signal, signal.SIGKILL),
        ]


def _read_verdict(path: Path) -> dict[str, object]:
    try:
        said = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


@asynccontextmanager
async def run_folder(job_uid: str) -> AsyncIterator[Path]:
    """Make a private folder; it and all processes of the job are gone afterwards.

    Args:
        job_uid: Value of ``contract.ENV_JOB_UID`` in the processes of this run alone.
    """
    folder = Path(tempfile.mkdtemp(prefix="dssync-"))
    try:
        janitor = await asyncio.create_subprocess_exec(
            *("/bin/sh", "-c", _JANITOR, str(folder), f"{contract.ENV_JOB_UID}={job_uid}"),
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError:
        shutil.rmtree(folder)
        raise
    try:
        yield folder
    finally:
        await janitor.communicate(b"")


def write_token(path: Path) -> None:
    """Make the secret of a run; only the owner may read it."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
