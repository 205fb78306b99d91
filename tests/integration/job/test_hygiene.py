"""After any end of a launcher nothing of it is left: processes, ports, files."""

import signal
import socket

import pytest

from integration.job.harness import Job, Launcher
from integration.job.processes import wait_gone

pytestmark = pytest.mark.timeout(240)


def ports_of(launcher: Launcher) -> list[int]:
    """Return the ports that a launcher said it listens on."""
    words = [word for word in launcher.text.split() if word.startswith("address=")]
    return [int(word.rpartition(":")[2]) for word in words]


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "code"),
    [
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="kill"),
        pytest.param(signal.SIGTERM, 0, id="term"),
        pytest.param(signal.SIGABRT, -signal.SIGABRT, id="abort"),
    ],
)
def test_nothing_is_left_after_a_signal(job: Job, number: signal.Signals, code: int) -> None:
    launcher = job.standalone(2, "--metrics-port", "0")
    job.board.wait(lambda line: line["event"] == "round", 4)
    ports = ports_of(launcher)

    launcher.signal(number)

    assert launcher.process.wait(60) == code
    assert not wait_gone(job.pids(), within_seconds=1.0)
    assert len(set(ports)) == 2
    assert not any(listens(port) for port in ports)
    assert list(job.scratch.iterdir()) == []


def test_two_signals_before_the_workers_run_end_at_once(job: Job) -> None:
    launcher = job.standalone(2)
    job.board.wait(launcher.says("coordinating"))

    launcher.signal(signal.SIGTERM)
    launcher.signal(signal.SIGINT)

    assert launcher.end() == 0
    assert "verdict=Drained" in launcher.text
    assert job.board.rounds() == []
    assert list(job.scratch.iterdir()) == []
