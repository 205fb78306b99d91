"""A static rendezvous whose name does not resolve yet, or resolves to an earlier address.

Each launcher sees files of the test in place of the machine's hosts and name servers.
"""

import socket
import subprocess
from pathlib import Path

import pytest

from ground.rights import needs
from integration.job.harness import Job

_MOUNTS = 'mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/resolv.conf && shift 2'
ENTER = ("unshare", "--mount", "sh", "-c", f'{_MOUNTS} && exec "$@"', "sh")
NAME = "coordinator.job"


def _can_mount() -> bool:
    try:
        tried = subprocess.run(["unshare", "--mount", "true"], check=False, capture_output=True)
    except OSError:
        return False
    return tried.returncode == 0


pytestmark = [
    pytest.mark.timeout(120),
    needs(_can_mount(), "make mount namespaces"),
]


class Names:
    """What launchers that run behind ``prefix`` resolve."""

    def __init__(self, folder: Path) -> None:
        self._hosts, servers = folder / "hosts", folder / "servers"
        self._hosts.touch()
        servers.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        self.prefix = [*ENTER, str(self._hosts), str(servers)]

    def are(self, address: str) -> None:
        """Let the coordinator's name stand for an address."""
        self._hosts.write_text(f"{address} {NAME}\n")


def test_launchers_wait_for_a_name_and_take_its_address_anew(job: Job, tmp_path: Path) -> None:
    names = Names(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--nnodes", "2", "--rdzv-endpoint", f"{NAME}:{port}", "--nproc-per-node", "1"]

    first = job.run(*flags, "--slot", "1", prefix=names.prefix, samples=40)
    job.board.wait(first.says("waiting", f"host={NAME}"))
    names.are("127.0.0.2")  # nobody listens there, on this port
    job.board.wait(first.says("listening", "address=127.0.0.1:"))
    host = job.run(*flags, "--slot", "0", prefix=names.prefix, samples=40)
    job.board.wait(host.says("coordinating"))
    assert not job.board.select(first.says("linked"))
    names.are("127.0.0.1")

    assert [first.end(), host.end()] == [0, 0]
    assert "committed=40 total=40 repeated=0" in host.text
