"""State on its way to a joiner: what may travel, what arrives, and how it can end."""

import ctypes
import json
import os
import socket
import subprocess
import threading
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st

from dssync.control.transport import ServerHandshake
from dssync.errors import ModelError, TransferError
from dssync.worker import transfer
from dssync.worker.staging import Snapshot, restore, take_snapshot
from dssync.worker.transfer import FetchedState, StateServer
from ground.rights import needs

TOKEN = b"secret"
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False)
)
STATES = st.recursive(
    PLAIN,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.integers() | st.text(), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(STATES)
def test_plain_states_arrive_as_they_were(state: object) -> None:
    taken = take_snapshot(state, None)

    assert restore(taken.header, taken.buffer) == state


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
)
def test_tensors_of_any_type_and_layout_arrive(dtype: torch.dtype) -> None:
    tensor = torch.arange(12).reshape(3, 4).to(dtype)
    state = {"a": tensor, "b": [tensor.t(), tensor[0, 0]], "empty": torch.zeros(0, 3)}

    taken = take_snapshot(state, None)
    arrived = restore(taken.header, taken.buffer)

    assert isinstance(arrived, dict)
    assert torch.equal(arrived["a"], tensor)
    assert torch.equal(arrived["b"][0], tensor.t())
    assert arrived["b"][1].shape == ()
    assert arrived["empty"].shape == (0, 3)


def test_an_optimizer_and_a_module_arrive() -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2)).sum().backward()
    optimizer.step()
    taken = take_snapshot({"m": model.state_dict(), "o": optimizer.state_dict()}, None)

    arrived = restore(taken.header, taken.buffer)

    assert isinstance(arrived, dict)
    fresh = torch.optim.Adam(torch.nn.Linear(2, 2).parameters())
    fresh.load_state_dict(arrived["o"])
    assert torch.equal(
        fresh.state_dict()["state"][0]["exp_avg"], optimizer.state[model.weight]["exp_avg"]
    )


def test_a_copy_of_what_is_trained_is_no_part_of_its_graph() -> None:
    weight = torch.ones(2, requires_grad=True)

    taken = take_snapshot([weight * 2, weight], None)

    assert not any(each.requires_grad for each in taken.memory.views)
    first, second = taken.state if isinstance(taken.state, list) else ()
    assert first.tolist() == [2.0, 2.0]
    assert second.tolist() == [1.0, 1.0]


def test_what_would_need_pickle_is_refused_with_its_place() -> None:
    with pytest.raises(ModelError, match=r"state\['optimizer'\]\[1\] is a set"):
        take_snapshot({"optimizer": [1, {2}]}, None)


def test_a_snapshot_is_a_copy_and_uses_its_memory_again() -> None:
    tensor = torch.ones(4)
    first = take_snapshot([tensor], None)
    tensor.fill_(2.0)
    before = first.buffer.clone()

    second = take_snapshot([tensor], first.memory)

    assert restore(first.header, before) == [pytest.approx([1.0] * 4)]
    assert second.buffer.data_ptr() == first.buffer.data_ptr()


@pytest.mark.parametrize(
    "cut", [b"", b"{", b'{"tree": 1}', b'{"tree": 1, "tensors": [["os", [1]]]}']
)
def test_a_malformed_header_is_refused(cut: bytes) -> None:
    with pytest.raises(TransferError):
        restore(cut, torch.empty(0, dtype=torch.uint8))


class Ended:
    """Counts the ends of transfers."""

    def __init__(self) -> None:
        self._semaphore = threading.Semaphore(0)

    def __call__(self) -> None:
        self._semaphore.release()

    def wait(self) -> None:
        assert self.came(10)

    def came(self, seconds: float) -> bool:
        return self._semaphore.acquire(timeout=seconds)


def serve(state: object) -> tuple[StateServer, Ended]:
    ended = Ended()
    return StateServer("127.0.0.1", TOKEN, lambda: take_snapshot(state, None), ended), ended


def test_several_joiners_fetch_from_one_donor() -> None:
    server, _ = serve({"weight": torch.arange(100_000)})
    ended = Ended()

    fetched = [FetchedState(server.address, TOKEN, ended) for _ in range(4)]
    for _ in fetched:
        ended.wait()
    server.close()

    for each in fetched:
        assert each.error is None
        assert isinstance(each.state, dict)
        assert torch.equal(each.state["weight"], torch.arange(100_000))
        assert each.size_bytes == 800_000


def test_a_stranger_gets_nothing() -> None:
    asked: list[Snapshot] = []
    ended, mine = Ended(), Ended()
    server = StateServer("127.0.0.1", TOKEN, asked.pop, ended)

    stranger = FetchedState(server.address, b"guess", mine)
    mine.wait()
    server.close()

    assert stranger.error is not None
    assert stranger.state is None
    assert server.transfers == 0, "it never was a transfer"


def test_a_joiner_gives_up_a_donor_that_does_not_answer() -> None:
    asked, answer = threading.Event(), threading.Event()

    def snapshot() -> Snapshot:
        asked.set()
        answer.wait(60)
        return take_snapshot({}, None)

    served, mine = Ended(), Ended()
    server = StateServer("127.0.0.1", TOKEN, snapshot, served)
    fetched = FetchedState(server.address, TOKEN, mine)
    assert asked.wait(10)

    fetched.give_up()
    mine.wait()
    answer.set()
    served.wait()
    server.close()

    assert fetched.state is None
    assert server.transfers == 0


def test_a_transfer_that_waits_before_it_begins_is_given_up_at_once() -> None:
    over = Ended()
    fetched = FetchedState("127.0.0.1:1", TOKEN, over, pause_seconds=3600.0)

    fetched.give_up()
    over.wait()

    assert fetched.done
    assert fetched.error is None


def test_a_donor_that_is_gone_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    ended = Ended()

    fetched = FetchedState(address, TOKEN, ended)
    ended.wait()

    assert fetched.error is not None


def test_ordered_dictionaries_arrive_in_order() -> None:
    taken = take_snapshot(OrderedDict(b=1, a=2), None)

    arrived = restore(taken.header, taken.buffer)

    assert isinstance(arrived, dict)
    assert list(arrived) == ["b", "a"]


class BadDonor:
    """A donor that proves the token, sends what it is told, and no more."""

    def __init__(self, sent: bytes) -> None:
        self._sent = sent
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            handshake = ServerHandshake(TOKEN)
            connection.sendall(handshake.challenge)
            reply = connection.recv(64, socket.MSG_WAITALL)
            connection.sendall(handshake.answer(reply) + self._sent)
            self._ended.wait(60)


def headed(**fields: object) -> bytes:
    header = json.dumps(fields).encode()
    return len(header).to_bytes(8, "big") + header


@pytest.mark.parametrize(
    "sent",
    [
        headed(tree=1, tensors=[], bytes=8, taken=None)[:9],
        headed(tree=1, tensors=[], bytes=8, taken=None) + b"half",
        headed(format="another"),
        headed(tree=1, tensors=[], bytes=2**62, taken=None),
        headed(tree=1, tensors=[], bytes=0, taken=7),
        (2).to_bytes(8, "big") + b"[]",
    ],
)
def test_a_transfer_that_breaks_off_or_makes_no_sense_is_an_error(
    monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(transfer, "IO_TIMEOUT_SECONDS", 0.2)
    donor, ended = BadDonor(sent), Ended()

    fetched = FetchedState(donor.address, TOKEN, ended)
    try:
        ended.wait()
    finally:
        donor.close()

    assert fetched.done
    assert fetched.error


def test_a_state_may_take_longer_than_a_part_of_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "IO_TIMEOUT_SECONDS", 0.2)
    server, served = serve({"weight": torch.zeros(4_000_000)})
    host, port = server.address.split(":")
    slow = threading.Event()  # The network; nothing sets it.

    with socket.socket() as joiner:
        joiner.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        joiner.connect((host, int(port)))
        transfer._show_token(joiner, TOKEN)
        received = 0
        while part := joiner.recv(1 << 16):
            received += len(part)
            slow.wait(0.005)
    served.wait()
    server.close()

    assert server.served == 1
    assert received > 16_000_000


CLONE_NEWNET = 0x40000000


def _alone_on_a_network(act: Callable[[], None]) -> bool:
    """Run something where only loopback is; tell whether this user may."""
    may: list[bool] = []

    def run() -> None:
        may.append(ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0)  # Of this thread, and its own.
        if may[0]:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            act()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return may[0]


@needs(os.geteuid() == 0, "make namespaces")
def test_a_donor_whose_packets_vanish_while_it_trains_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transfer, "PROBE_SECONDS", 1)
    monkeypatch.setattr(transfer, "PROBES", 2)
    asked, answer, found = threading.Event(), threading.Event(), []

    def snapshot() -> Snapshot:
        asked.set()
        answer.wait(60)
        raise TransferError("it is over")

    def act() -> None:
        server, ended = StateServer("127.0.0.1", TOKEN, snapshot, lambda: None), Ended()
        fetched = FetchedState(server.address, TOKEN, ended)
        assert asked.wait(10)
        subprocess.run(["ip", "link", "set", "lo", "down"], check=True)
        found.append(ended.came(30))
        answer.set()
        server.close()
        found.append(fetched.error)

    may = _alone_on_a_network(act)

    assert may
    assert found[0]
    assert found[1]
