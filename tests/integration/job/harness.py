"""Real launchers on loopback, and a board on which their workers' lines appear.

A test starts launchers, waits for lines, holds members at announced points and sends signals to
the processes that stand behind them. Whatever it started is gone when it ends.
"""

import asyncio
import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from dssync.agent.arbiters import FileArbiter, Record
from integration.job.processes import began_seconds, cpu_ticks, wait_gone

SCRIPTS = Path(__file__).parent / "scripts"
PATIENCE_SECONDS = 100.0
"""For what happens within a second on an idle machine."""

Line = dict[str, Any]
Test = Callable[[Line], bool]


class Board:
    """Lines of all members in order of arrival, and the members that wait for an answer."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._folder = tempfile.TemporaryDirectory(prefix="dssync-board-")
        # A file, which launchers in other network namespaces find as well.
        self.address = f"{self._folder.name}/socket"
        self._changed = threading.Condition()
        self._holds: list[Test] = []
        self._held: list[tuple[Line, socket.socket]] = []
        self._buffers: dict[int, bytes] = {}
        self._selector = selectors.DefaultSelector()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.address)
        self._listener.listen(256)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._ender = socket.socketpair()
        self._selector.register(self._waker, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def wait(self, test: Test, count: int = 1) -> list[Line]:
        """Return the first ``count`` lines that pass, waiting for them."""
        return self._await(test, count, 0)

    def wait_while(self, going_on: Test, test: Test) -> None:
        """Wait for a line that passes, however long that takes, while others show that all goes on.

        What is left of the data when nothing more is done to a job takes minutes on a busy machine.
        """
        self._await(test, 1, 0, going_on)

    def next(self, test: Test) -> Line:
        """Wait for a line that passes and is not there yet."""
        return self._await(test, 1, len(self.lines))[0]

    def select(self, test: Test) -> list[Line]:
        """Return all lines so far that pass."""
        return [line for line in list(self.lines) if test(line)]

    def rounds(self, **fields: Any) -> list[Line]:
        """Return the reports of rounds with these fields."""
        return self.select(matching(event="round", **fields))

    @contextmanager
    def hold(self, test: Test) -> Iterator[Callable[[], Line]]:
        """Hold members whose announcement passes; the value waits for the first of them."""

        def held() -> Line:
            with self._changed:
                if not self._changed.wait_for(lambda: self._holding(test), PATIENCE_SECONDS):
                    raise TimeoutError("nobody announced what was to be held")
                return self._holding(test)[0]

        with self._changed:
            self._holds.append(test)
        try:
            yield held
        finally:
            self.release(test)

    def release(self, test: Test) -> None:
        """Hold nobody by this test any more."""
        with self._changed:
            if test in self._holds:
                self._holds.remove(test)
            going = [each for each in self._held if test(each[0])]
            self._held = [each for each in self._held if each not in going]
        for _, connection in going:
            _answer(connection)

    def follow(self, stream: IO[bytes], source: str) -> None:
        """Post the lines of a launcher's output, and its end."""
        self._selector.register(stream, selectors.EVENT_READ, source)

    def close(self) -> None:
        self._ender.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        self._folder.cleanup()

    def _await(
        self, test: Test, count: int, first: int, going_on: Test = lambda _: False
    ) -> list[Line]:
        """Wait for lines from the given one on; each is looked at once, since there are many."""
        found: list[Line] = []
        seen, until = first, time.monotonic() + PATIENCE_SECONDS

        def enough() -> bool:
            nonlocal seen, until
            while seen < len(self.lines) and len(found) < count:
                line, seen = self.lines[seen], seen + 1
                if test(line):
                    found.append(line)
                elif going_on(line):
                    until = max(until, line["seen"] + PATIENCE_SECONDS)
            return len(found) == count

        with self._changed:
            while not enough():
                if not self._changed.wait(until - time.monotonic()):
                    raise TimeoutError(f"only {len(found)} of {count} lines in time")
        return found

    def _holding(self, test: Test) -> list[Line]:
        return [line for line, _ in self._held if test(line)]

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is self._waker:
                    return
                if key.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._selector.register(connection, selectors.EVENT_READ, connection)
                else:
                    self._read(key)

    def _read(self, key: selectors.SelectorKey) -> None:
        try:
            data = os.read(key.fd, 1 << 16)
        except ConnectionError:
            data = b""
        *lines, rest = (self._buffers.pop(key.fd, b"") + data).split(b"\n")
        source = key.data
        for line in lines:
            if isinstance(source, socket.socket):
                self._post(json.loads(line), source)
            else:
                text = line.decode(errors="replace")
                self._post({"event": "log", "source": source, "text": text}, None)
        if data:
            self._buffers[key.fd] = rest
            return
        self._selector.unregister(key.fileobj)
        key.fileobj.close()  # type: ignore[union-attr]
        if isinstance(source, str):
            self._post({"event": "end", "source": source}, None)

    def _post(self, line: Line, connection: socket.socket | None) -> None:
        line["seen"] = time.monotonic()
        with self._changed:
            self.lines.append(line)
            asks = connection is not None and bool(line.get("asks"))
            held = asks and any(test(line) for test in self._holds)
            if connection is not None and held:
                self._held.append((line, connection))
            self._changed.notify_all()
        if connection is not None and asks and not held:
            _answer(connection)


def _answer(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was killed where it was held
        connection.sendall(b"go\n")


def matching(**fields: Any) -> Test:
    """Return the test that a line has these values."""
    return lambda line: all(line.get(key) == value for key, value in fields.items())


def coordinates(line: Line) -> bool:
    """Tell whether a launcher says that it has become coordinator."""
    return "dssync coordinating" in line.get("text", "")


class Launcher:
    """One ``dssync run`` as a process of its own."""

    def __init__(
        self, name: str, command: list[str], environment: dict[str, str], board: Board
    ) -> None:
        self.name = name
        self._board = board
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self.pid = self.process.pid
        assert self.process.stdout is not None
        board.follow(self.process.stdout, name)

    @property
    def text(self) -> str:
        """Everything that the launcher and its workers have printed."""
        said = self._board.select(matching(event="log", source=self.name))
        return "\n".join(line["text"] for line in said)

    def says(self, *words: str) -> Test:
        """Return the test for a line of its output that holds all these words."""
        mine = matching(event="log", source=self.name)
        return lambda line: mine(line) and all(word in line["text"] for word in words)

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> int:
        """Return the exit code, waiting for it and for the rest of the output."""
        self._board.wait(matching(event="end", source=self.name))
        return self.process.wait(PATIENCE_SECONDS)


class Job:
    """Launchers of one job, started by the test."""

    def __init__(self, folder: Path) -> None:
        self.board = Board()
        self.folder = folder
        self.launchers: list[Launcher] = []
        self.scratch = folder / "scratch"
        self.scratch.mkdir()

    def run(
        self,
        *flags: str,
        script: str | Path = "training.py",
        environment: dict[str, str] | None = None,
        prefix: Sequence[str] = (),
        **spec: Any,
    ) -> Launcher:
        """Start ``dssync run`` with a script of this folder, which finds ``spec``.

        ``prefix`` comes before the command, as ``nice`` would.
        """
        command = [
            *prefix,
            sys.executable,
            "-m",
            "dssync.cli",
            "run",
            *flags,
            str(SCRIPTS / script),
        ]
        name = f"launcher-{len(self.launchers)}"
        variables = {
            **os.environ,
            "JOB_POD": name,
            "JOB_SPEC": json.dumps(spec),
            "JOB_SOCKET": self.board.address,
            "TMPDIR": str(self.scratch),
            "OMP_NUM_THREADS": "1",
            # torch makes this directory when it is imported.
            "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "inductor"),
            **(environment or {}),
        }
        self.launchers.append(Launcher(name, command, variables, self.board))
        return self.launchers[-1]

    def standalone(self, workers: int, *flags: str, **spec: Any) -> Launcher:
        """Start one launcher that is alone."""
        return self.run("--standalone", "--nproc-per-node", str(workers), *flags, **spec)

    def pod(self, slot: int, workers: int, *flags: str, pods: str = "1:4", **spec: Any) -> Launcher:
        """Start one of several launchers that find each other by a file."""
        arbiter = f"file:{self.folder / 'arbiter'}"
        common = [
            "--nnodes",
            pods,
            "--slot",
            str(slot),
            "--arbiter",
            arbiter,
            "--join-window",
            "100",
        ]
        return self.run(*common, "--nproc-per-node", str(workers), *flags, **spec)

    def resize(self, desired: int, least: int = 1, **entries: str) -> None:
        """Write the wanted number of pods, and what else, where the coordinator will read it."""
        values = {"dssync.io/desired": str(desired), "dssync.io/min": str(least)}
        values |= {f"dssync.io/{key}": text for key, text in entries.items()}
        first = FileArbiter(self.folder / "arbiter").swap(Record(), Record(values=values))
        assert asyncio.run(first) is not None

    def note(self, key: str, text: str) -> None:
        """Write one entry into the record beside what the coordinator writes."""
        asyncio.run(self._note(f"dssync.io/{key}", text))

    async def _note(self, key: str, text: str) -> None:
        arbiter = FileArbiter(self.folder / "arbiter")
        while True:
            record = await arbiter.read()
            values = {**record.values, key: text}
            if await arbiter.swap(record, replace(record, values=values)) is not None:
                return

    def coordinator(self) -> Launcher:
        """Return the launcher that became coordinator last."""
        self.board.wait(coordinates)
        name = self.board.select(coordinates)[-1]["source"]
        return next(each for each in self.launchers if each.name == name)

    def kill(self, pid: int) -> None:
        """Kill a process of the job."""
        os.kill(pid, signal.SIGKILL)

    def freeze(self, pid: int) -> None:
        """Stop a process of the job."""
        os.kill(pid, signal.SIGSTOP)

    def thaw(self, pid: int) -> None:
        """Let a stopped process go on."""
        os.kill(pid, signal.SIGCONT)

    def settle(self, pid: int) -> None:
        """Wait until a process has not used its processor for some time: it waits for others."""
        used, since = cpu_ticks(pid), time.monotonic()
        while time.monotonic() - since < 0.05:
            if cpu_ticks(pid) != used:
                used, since = cpu_ticks(pid), time.monotonic()
            time.sleep(0.005)

    def pids(self) -> set[int]:
        """Return every process that was seen to belong to the job."""
        said = {int(line["pid"]) for line in self.board.lines if "pid" in line}
        return said | {each.pid for each in self.launchers}

    def stop(self) -> None:
        """Kill whatever still runs."""
        for launcher in self.launchers:
            if launcher.process.poll() is None:
                launcher.signal(signal.SIGCONT)
                launcher.signal(signal.SIGKILL)
            launcher.process.wait(PATIENCE_SECONDS)
        with (self.folder / "board.jsonl").open("w") as file:
            file.writelines(json.dumps(line) + "\n" for line in self.board.lines)
        heard = {int(line["pid"]): line["seen"] for line in self.board.lines if "pid" in line}
        # A process that began after the worker of this number was last heard of is another.
        workers = {pid for pid, seen in heard.items() if began_seconds(pid) <= seen}
        left = wait_gone(workers, PATIENCE_SECONDS)
        self.board.close()
        assert not left, f"processes {left} outlived their launchers"
