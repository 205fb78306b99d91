"""Which sockets belong to a group, and what shutting them down does."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from dssync.errors import CommunicatorError
from dssync.worker.sockets import Connections, Endpoint, listener_endpoint, shut_down


@dataclass(frozen=True)
class Connection:
    """A listener of this process and both ends of one connection to it."""

    listener: socket.socket
    accepted: socket.socket
    initiated: socket.socket

    @property
    def endpoint(self) -> Endpoint:
        host, port = self.listener.getsockname()
        return host, port


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as entered:
        yield entered


def connect(stack: ExitStack) -> Connection:
    listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    initiated = stack.enter_context(socket.create_connection(listener.getsockname()))
    accepted = stack.enter_context(listener.accept()[0])
    return Connection(listener, accepted, initiated)


def blob_of(host_name: bytes, sockaddr: bytes) -> bytes:
    address = sockaddr.ljust(128, b"\0") + struct.pack("=q", 0)
    return struct.pack("=Q", len(host_name)) + host_name + struct.pack("=Q", len(address)) + address


def test_both_ends_of_a_connection_to_a_known_listener_are_found(stack: ExitStack) -> None:
    known, _other = connect(stack), connect(stack)

    found = Connections().to({known.endpoint})

    ends = {known.accepted.fileno(), known.initiated.fileno()}
    assert {each.descriptor for each in found} == ends


def test_shutting_down_ends_connections_but_never_the_listener(stack: ExitStack) -> None:
    known, other = connect(stack), connect(stack)

    shut_down(Connections().to({known.endpoint}))

    assert known.accepted.recv(1) == known.initiated.recv(1) == b""
    stack.enter_context(socket.create_connection(known.endpoint))  # it still listens
    other.initiated.sendall(b"x")
    assert other.accepted.recv(1) == b"x"


def test_a_descriptor_that_was_closed_and_used_again_is_left_alone(stack: ExitStack) -> None:
    known, other = connect(stack), connect(stack)
    found = Connections().to({known.endpoint})
    for end in (known.accepted, known.initiated):
        os.dup2(other.accepted.fileno(), end.fileno())

    shut_down(found)

    other.initiated.sendall(b"x")
    assert other.accepted.recv(1) == b"x"


def test_what_is_known_of_a_connection_does_not_outlive_it(stack: ExitStack) -> None:
    known, other = connect(stack), connect(stack)
    connections = Connections()
    connections.to({known.endpoint})
    os.dup2(other.accepted.fileno(), known.accepted.fileno())

    found = connections.to({known.endpoint})

    assert [each.descriptor for each in found] == [known.initiated.fileno()]


def test_a_connection_that_was_made_later_is_found(stack: ExitStack) -> None:
    known, connections = connect(stack), Connections()
    connections.to({known.endpoint})
    later = stack.enter_context(socket.create_connection(known.endpoint))

    found = connections.to({known.endpoint})

    assert later.fileno() in {each.descriptor for each in found}


def test_nothing_is_left_open_by_the_search(stack: ExitStack) -> None:
    known = connect(stack)
    before = os.listdir("/proc/self/fd")

    shut_down(Connections().to({known.endpoint}))

    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("host_name", [b"", b"vm", b"worker-0.job.default.svc.cluster.local"])
def test_a_listener_is_read_behind_a_host_name_of_any_length(host_name: bytes) -> None:
    four = struct.pack("=H", socket.AF_INET) + struct.pack("!H", 43691) + bytes([10, 1, 2, 3])
    six = struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", 80, 0) + bytes(15) + b"\1"

    assert listener_endpoint(blob_of(host_name, four)) == ("10.1.2.3", 43691)
    assert listener_endpoint(blob_of(host_name, six)) == ("::1", 80)


@pytest.mark.parametrize(
    "blob", [b"", b"\xff" * 40, blob_of(b"vm", b""), blob_of(b"vm", b"\1\0ab")]
)
def test_a_blob_of_another_layout_is_refused(blob: bytes) -> None:
    with pytest.raises(CommunicatorError, match="layout"):
        listener_endpoint(blob)
