"""A session loses nothing and repeats nothing, however often its connection breaks."""

from collections import deque

import pytest
from hypothesis import given, strategies as st

from dssync.control.session import Session
from dssync.errors import ProtocolError

STEPS = st.lists(st.sampled_from(("send a", "send b", "to a", "to b", "beat", "cut")), max_size=80)


class Pair:
    """Two sessions and the wires between them."""

    def __init__(self) -> None:
        self.a, self.b = Session(), Session()
        self.wire_to_a: deque[bytes] = deque()
        self.wire_to_b: deque[bytes] = deque()
        self.received: dict[str, list[bytes]] = {"a": [], "b": []}

    def reconnect(self) -> None:
        """Lose what is under way; exchange first frames; send the rest again."""
        self.wire_to_a.clear()
        self.wire_to_b.clear()
        self.b.accept(self.a.passing())
        self.a.accept(self.b.passing())
        self.wire_to_b.extend(self.a.resume())
        self.wire_to_a.extend(self.b.resume())

    def deliver(self, name: str) -> None:
        wire, end = (self.wire_to_a, self.a) if name == "a" else (self.wire_to_b, self.b)
        if wire and (payload := end.accept(wire.popleft())):
            self.received[name].append(payload)


@given(STEPS)
def test_messages_arrive_once_and_in_order_over_any_cuts(steps: list[str]) -> None:
    pair, sent_by_a, sent_by_b = Pair(), [], []

    for number, step in enumerate(steps):
        payload = str(number).encode()
        match step:
            case "send a":
                sent_by_a.append(payload)
                pair.wire_to_b.append(pair.a.number(payload))
            case "send b":
                sent_by_b.append(payload)
                pair.wire_to_a.append(pair.b.number(payload))
            case "beat":
                pair.wire_to_b.append(pair.a.passing())
            case "cut":
                pair.reconnect()
            case _:
                pair.deliver(step[-1])
    pair.reconnect()
    while pair.wire_to_a or pair.wire_to_b:
        pair.deliver("a")
        pair.deliver("b")

    assert pair.received == {"a": sent_by_b, "b": sent_by_a}


def test_what_is_acknowledged_is_forgotten() -> None:
    sender, receiver = Session(), Session()
    for number in range(100):
        receiver.accept(sender.number(b"%d" % number))

    sender.accept(receiver.passing())

    assert sender.resume() == []


def test_a_message_that_arrives_twice_is_heard_once() -> None:
    sender, receiver = Session(), Session()
    frame = sender.number(b"once")

    assert [receiver.accept(frame), receiver.accept(frame)] == [b"once", None]


def test_a_gap_is_refused() -> None:
    sender, receiver = Session(), Session()
    sender.number(b"lost")

    with pytest.raises(ProtocolError, match="message 2 of a session arrived but 1 is next"):
        receiver.accept(sender.number(b"second"))


@pytest.mark.parametrize("size", range(16))
def test_a_truncated_frame_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="too short"):
        Session().accept(b"\0" * size)


@pytest.mark.parametrize("bits", [8, 16, 31, 32, 48])
def test_a_session_goes_on_for_as_long_as_a_job(bits: int) -> None:
    sender, receiver = Session(), Session()
    sender._sent = receiver._received = 2**bits - 2

    frames = [sender.number(b"%d" % number) for number in range(4)]

    assert [receiver.accept(frame) for frame in frames] == [b"0", b"1", b"2", b"3"]
    sender.accept(receiver.passing())
    assert sender.resume() == []
