"""Strangers at the port where a donor serves its state."""

import errno
import socket
import threading

import pytest
from hypothesis import given, settings, strategies as st

from dssync.worker import transfer
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


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENETUNREACH, errno.EPROTO])
def test_a_donor_goes_on_listening_after_a_failed_accept(
    monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    donor, accept, failed = Donor(), socket.socket.accept, threading.Semaphore(0)

    def fail_first(listener: socket.socket) -> tuple[socket.socket, object]:
        if not failed.acquire(blocking=False):
            return accept(listener)
        raise OSError(error, "no connection")

    try:
        for _ in range(3):
            failed.release()
        monkeypatch.setattr(socket.socket, "accept", fail_first)
        assert donor.fetch() == {"steps": 1}  # By the call that had begun before.
        assert donor.fetch() == {"steps": 2}
    finally:
        donor.server.close()


def test_a_donor_goes_on_without_a_thread_for_a_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    donor = Donor()

    def fail(*arguments: object, **options: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    try:
        monkeypatch.setattr(transfer.threading, "Thread", fail)
        with donor.connection() as refused:
            assert refused.recv(32) == b""
        monkeypatch.undo()
        assert donor.fetch() == {"steps": 1}
    finally:
        donor.server.close()


def test_strangers_that_say_nothing_give_way_to_who_comes_later() -> None:
    donor = Donor()
    strangers = []
    try:
        for _ in range(2 * transfer.MOST_STRANGERS):
            strangers.append(donor.connection())
            assert len(strangers[-1].recv(32)) == 32

        ended = strangers[: transfer.MOST_STRANGERS]
        assert [_receive(each) for each in ended] == [b""] * transfer.MOST_STRANGERS
        assert donor.fetch() == {"steps": 1}
    finally:
        for each in strangers:
            each.close()
        donor.server.close()


def test_a_donor_that_is_closed_listens_no_more() -> None:
    # The thread of a donor that was closed just before may be on its way out still.
    others = set(threading.enumerate())
    donor = Donor()
    begun = set(threading.enumerate()) - others
    (listening,) = [each for each in begun if each.name == "dssync-state"]

    donor.server.close()

    listening.join(PATIENCE)
    assert not listening.is_alive()
