"""A Docker daemon for the test cluster: the one that runs, or one of our own.

Our own keeps everything in one folder of the user's cache, has its own socket, and is gone without
a trace after ``stop``: what it changed in the machine's packet filter is put back as it was.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ground.build import GroundError
from ground.kind.machine import has_resource_capability
from ground.kind.traces import Traces

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 30.0
COMMAND_SECONDS: Final = 900.0
WRAPPER: Final = Path(__file__).parent / "node" / "runc-without-sys-resource"


@dataclass(frozen=True)
class Daemon:
    """Where the daemon of the test cluster is.

    Attributes:
        folder: Keeps images, state and log of our own daemon.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which docker and kind find the daemon."""
        return {"DOCKER_HOST": f"unix://{self._socket}"} if self.is_ours else {}

    @property
    def is_ours(self) -> bool:
        """Whether we started it and it runs."""
        return self._pid() is not None

    def docker(self, *arguments: object, seconds: float = COMMAND_SECONDS) -> str:
        """Run a docker command and return what it printed.

        Raises:
            GroundError: It failed, or took longer than ``seconds``.
        """
        command = ["docker", *map(str, arguments)]
        environment = {**os.environ, "DOCKER_BUILDKIT": "0", **self.environment}
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, timeout=seconds
            )
        except subprocess.TimeoutExpired as error:
            raise GroundError(f"`{' '.join(command)}` took longer than {seconds:g} s") from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr)[-4000:]
            raise GroundError(f"`{' '.join(command)}` ended with {done.returncode}:\n{said}")
        return done.stdout

    def start(self) -> None:
        """Start one unless one is there.

        Raises:
            GroundError: None is installed, or it did not come up.
        """
        if self.is_ours or _answers({}):
            return
        if shutil.which("dockerd") is None:
            raise GroundError("no Docker daemon runs and there is no dockerd: install docker.io")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._traces.remember()
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                self._command(),
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._pid_file.write_text(str(process.pid))
        give_up = time.monotonic() + START_SECONDS
        while not _answers({"DOCKER_HOST": f"unix://{self._socket}"}):
            if process.poll() is not None or time.monotonic() > give_up:
                raise GroundError(f"dockerd did not come up:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End our own daemon, if it runs, and undo what it did to the machine.

        Raises:
            GroundError: Something of it is left.
        """
        pid = self._pid()
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
            give_up = time.monotonic() + STOP_SECONDS
            while _alive(pid) and time.monotonic() < give_up:
                time.sleep(0.1)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._pid_file.unlink(missing_ok=True)
        if not self._traces.remembered:
            return
        self._traces.undo()
        if left := self._traces.left():
            raise GroundError("the Docker daemon has left behind:\n" + "\n".join(left))
        self._traces.forget()

    def _command(self) -> list[str]:
        command = [
            "dockerd",
            f"--host=unix://{self._socket}",
            f"--data-root={self.folder / 'images'}",
            f"--exec-root={self.folder / 'run'}",
            f"--pidfile={self.folder / 'docker.pid'}",
            "--bridge=none",
        ]
        if not has_resource_capability():
            command += [f"--add-runtime=less={WRAPPER}", "--default-runtime=less"]
        return command

    @property
    def _traces(self) -> Traces:
        return Traces(self.folder)

    @property
    def _socket(self) -> Path:
        return self.folder / "socket"

    @property
    def _log(self) -> Path:
        return self.folder / "dockerd.log"

    @property
    def _pid_file(self) -> Path:
        return self.folder / "pid"

    def _pid(self) -> int | None:
        """Process id of our own daemon; never one that the system gave to something else."""
        try:
            pid = int(self._pid_file.read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        return pid if str(self._socket).encode() in command else None


def _answers(environment: dict[str, str]) -> bool:
    done = subprocess.run(
        ["docker", "version"], env={**os.environ, **environment}, capture_output=True
    )
    return done.returncode == 0


def _alive(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return Path(f"/proc/{pid}").exists()
