"""Strangers at the port where a donor serves its state."""

import socket
import threading

from hypothesis import given, settings, strategies as st

from dssync.worker.staging import Snapshot, take_snapshot
from dssync.worker.transfer import FetchedState, StateServer

TOKEN = b"the job's secret"
PATIENCE = 10.0


class Donor:
    """A state server that counts what reaches it."""

    def __init__(self) -> None:
        self.snapshots = 0
        self.ends = threading.Semaphore(0)
        self.server = StateServer("127.0.0.1", TOKEN, self._snapshot, self.ends.release)

    def _snapshot(self) -> Snapshot:
        self.snapshots += 1
        return take_snapshot({"steps": self.snapshots}, None)

    def connection(self) -> socket.socket:
        host, _, port = self.server.address.rpartition(":")
        connection = socket.create_connection((host, int(port)), PATIENCE)
        connection.settimeout(PATIENCE)
        return connection

    def fetch(self) -> object:
        done = threading.Event()
        fetched = FetchedState(self.server.address, TOKEN, done.set)
        assert done.wait(PATIENCE)
        assert fetched.error is None
        return fetched.state


@settings(max_examples=40, deadline=None)
@given(sent=st.binary(max_size=300))
def test_a_stranger_gets_the_challenge_and_no_snapshot_is_taken(sent: bytes) -> None:
    donor = Donor()
    try:
        with donor.connection() as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            heard = b"".join(iter(lambda: _receive(connection), b""))

        assert len(heard) == 32
        assert (donor.snapshots, donor.server.transfers) == (0, 0)
        assert donor.fetch() == {"steps": 1}
    finally:
        donor.server.close()


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(4096)
    except ConnectionResetError:
        return b""


def test_a_stranger_that_says_nothing_is_no_transfer() -> None:
    donor = Donor()
    try:
        with donor.connection() as silent:
            assert len(silent.recv(32)) == 32

            assert donor.server.transfers == 0
            assert donor.fetch() == {"steps": 1}
    finally:
        donor.server.close()
