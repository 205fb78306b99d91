"""Nothing outlives a launcher, however it dies, and nothing lies about afterwards."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LAUNCHER = """
import asyncio, json, os, sys
from dssync.agent.settings import Command, Settings, WorldSettings
from dssync.agent.supervisor import Supervisor, WorkerSpec

async def main():
    script, preload = sys.argv[1], sys.argv[2:]
    settings = Settings(Command("script", script), environment=dict(os.environ))
    supervisor = Supervisor(settings, lambda exit_: None, preload)
    loop = asyncio.get_running_loop()
    pids = []
    for rank in range(2):
        worker = await supervisor.start(WorkerSpec(rank))
        pids += json.loads(await loop.sock_recv(worker.link, 1000))
    print(json.dumps(pids), flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""

WORKER = """
import json, os, signal, socket
link = socket.socket(fileno=int(os.environ["DSSYNC_LINK_FD"]))
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child == 0:
    signal.pause()
link.sendall(json.dumps([os.getppid(), os.getpid(), child]).encode())
signal.pause()
"""


def launch(tmp_path: Path, *preload: str) -> subprocess.Popen[str]:
    (tmp_path / "worker.py").write_text(WORKER)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    path = [str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, str(tmp_path / "worker.py"), *preload],
        stdout=subprocess.PIPE,
        text=True,
        cwd=scratch,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": os.pathsep.join(path)},
        start_new_session=True,
    )


def all_ended(pidfds: list[int], within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    return all(
        select.select([pidfd], [], [], max(0.0, deadline - time.monotonic()))[0] for pidfd in pidfds
    )


def close(pidfds: list[int]) -> None:
    for pidfd in pidfds:
        os.close(pidfd)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_everybody_dies_with_the_launcher(tmp_path: Path, number: signal.Signals) -> None:
    with launch(tmp_path) as launcher:
        assert launcher.stdout is not None
        pids = set(json.loads(launcher.stdout.readline()))
        pidfds = [os.pidfd_open(pid) for pid in pids]

        launcher.send_signal(number)

        assert all_ended(pidfds, 1.0)
        assert len(pids) == 5  # fork-server, two workers, a child of each
        assert list((tmp_path / "scratch").iterdir()) == []
        close(pidfds)


def test_workers_and_what_they_started_die_with_a_fork_server_that_is_killed(
    tmp_path: Path,
) -> None:
    with launch(tmp_path) as launcher:
        assert launcher.stdout is not None
        server, *pids = json.loads(launcher.stdout.readline())
        pidfds = [os.pidfd_open(pid) for pid in pids if pid != server]

        os.kill(server, signal.SIGKILL)

        assert all_ended(pidfds, 1.0)
        assert len(pidfds) == 4
        launcher.kill()
        close(pidfds)


def test_a_fork_server_that_still_imports_dies_with_the_launcher(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pid")
    (tmp_path / "slow.py").write_text(
        f"import os, signal\nopen({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "signal.pause()\n"
    )
    with launch(tmp_path, "slow") as launcher:
        pidfds = [os.pidfd_open(int((tmp_path / "pid").read_text()))]

        launcher.kill()

        assert all_ended(pidfds, 1.0)
        close(pidfds)


def test_a_terminals_signals_reach_the_launcher_alone(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher:
        assert launcher.stdout is not None
        pids = json.loads(launcher.stdout.readline())

        groups = {os.getpgid(pid) for pid in pids}
        sessions = {os.getsid(pid) for pid in pids}

        assert launcher.pid not in groups | sessions
        assert len(groups) == 3  # each worker leads one, with what it started
        launcher.kill()


def test_signals_to_everybody_do_not_end_the_fork_server(tmp_path: Path) -> None:
    with launch(tmp_path) as launcher:
        assert launcher.stdout is not None
        server, *_ = json.loads(launcher.stdout.readline())

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            os.kill(server, number)

        pending = Path(f"/proc/{server}/status").read_text().partition("ShdPnd:")[2].split()[0]
        assert int(pending, 16).bit_count() == 4
        launcher.kill()
