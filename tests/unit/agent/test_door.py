"""A launcher's port under fuzzing: real sockets, a real coordinator behind them."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.console.client import ask
from dssync.console.find import Target
from dssync.control import messages as m, requests as r
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
from dssync.control.peers import Answer as PeerAnswer, Leader
from dssync.control.session import Session
from dssync.control.transport import FrameProtocol, ServerHandshake, connect, frame
from dssync.errors import AuthenticationError, ProtocolError

TOKEN = b"the job's secret"
HELLO = m.Hello(3, "pod", 1, ("", "", ""))
FUZZ = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Launcher:
    """A listening launcher that coordinates."""

    coordinator: Coordinator
    host: CoordinatorHost
    door: Door
    asked: list[r.Request] = field(default_factory=list)
    refused: int = 0

    @property
    def target(self) -> Target:
        host, _, port = self.door.address.rpartition(":")
        return Target(host, int(port), TOKEN)

    async def stands(self) -> bool:
        """Whether it still answers who holds the token."""
        return isinstance(await ask(self.target, r.AskStatus()), r.Accepted)


class Voter:
    """A launcher's part in elections that knows of no coordinator."""

    answer = PeerAnswer("pod", None)

    def heard(self, leader: Leader) -> None:
        raise AssertionError(leader)


@pytest.fixture
async def launcher() -> AsyncIterator[Launcher]:
    async def respond(request: r.Request) -> r.Answer:
        made.asked.append(request)
        return r.Accepted("heard")

    def refused() -> None:
        made.refused += 1

    coordinator = Coordinator(1, ControlSettings(desired=1, minimum=1))
    door = Door(respond, Voter(), refused)
    made = Launcher(coordinator, CoordinatorHost(coordinator, lambda note: None), door)
    made.door.launchers = made.host
    await made.door.open("127.0.0.1", 0, TOKEN)
    yield made
    await made.door.close()


def attempts() -> st.SearchStrategy[list[bytes]]:
    """What a stranger may send: bytes, frames of any announced size, and messages of insiders."""
    hello = json.dumps([m.LAUNCHER.encode(HELLO).decode(), False, 1]).encode()
    insiders = [hello, r.MARK + r.REQUEST.encode(r.AskDrain(0)), Session().passing()]
    framed = st.one_of(st.sampled_from(insiders), st.binary(max_size=200)).map(frame)
    sizes = st.integers(0, 2**32 - 1).map(lambda size: size.to_bytes(4, "big"))
    return st.lists(st.one_of(framed, sizes, st.binary(max_size=200)), max_size=6)


@FUZZ
@given(sent=attempts())
async def test_a_stranger_changes_nothing_and_breaks_nothing(
    launcher: Launcher, sent: list[bytes]
) -> None:
    target = launcher.target
    reader, writer = await asyncio.open_connection(target.host, target.port)
    for each in sent:
        writer.write(each)
    writer.write_eof()

    answer = await reader.read()
    writer.close()

    assert len(answer) == 4 + 32, "a stranger hears the challenge and nothing else"
    assert launcher.coordinator.roster.pods == {}
    assert [each for each in launcher.asked if not isinstance(each, r.AskStatus)] == []
    assert await launcher.stands()


async def test_who_shows_another_token_is_refused_and_counted(launcher: Launcher) -> None:
    target = launcher.target

    with pytest.raises(AuthenticationError):
        await connect(target.host, target.port, b"another", lambda payload: None, lambda: None)

    assert launcher.refused == 1
    assert await launcher.stands()


async def test_who_comes_and_goes_without_a_word_is_not_counted(launcher: Launcher) -> None:
    target = launcher.target

    reader, writer = await asyncio.open_connection(target.host, target.port)
    writer.write_eof()
    await reader.read()
    writer.close()

    assert await launcher.stands()
    assert launcher.refused == 0


@FUZZ
@given(sent=st.lists(st.binary(max_size=100), min_size=1, max_size=4))
async def test_an_insider_that_sends_nonsense_loses_its_connection_only(
    launcher: Launcher, sent: list[bytes]
) -> None:
    ended = asyncio.Event()
    target = launcher.target
    connection = await connect(target.host, target.port, TOKEN, lambda payload: None, ended.set)

    for payload in sent:
        connection.send(payload)
    connection.send(b"[[[" * 200)

    await asyncio.wait_for(ended.wait(), 10)
    assert launcher.coordinator.roster.pods == {}
    assert await launcher.stands()


@pytest.mark.parametrize("nonsense", [b"[" * 100_000, b"[[" * 5000 + b"]]" * 5000, b"[1,2,3]"])
async def test_a_first_frame_that_is_no_hello_ends_the_connection(
    launcher: Launcher, nonsense: bytes
) -> None:
    ended = asyncio.Event()
    target = launcher.target
    connection = await connect(target.host, target.port, TOKEN, lambda payload: None, ended.set)

    connection.send(nonsense)

    await asyncio.wait_for(ended.wait(), 10)
    assert await launcher.stands()


@given(
    codec=st.sampled_from((m.MEMBER, m.TO_MEMBER, m.LAUNCHER, m.TO_LAUNCHER, r.REQUEST, r.ANSWER)),
    data=st.one_of(
        st.binary(max_size=300),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner),
            max_leaves=20,
        ).map(lambda value: json.dumps(value).encode()),
        st.tuples(
            st.sampled_from(("Hello", "Assign", "AskDrain", "Status", "Leases", "ToMember")),
            st.lists(st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers())),
        ).map(lambda parts: json.dumps([parts[0], *parts[1]]).encode()),
    ),
)
def test_whatever_arrives_is_a_message_or_refused(codec: m.Codec, data: bytes) -> None:
    try:
        message = codec.decode(data)
    except ProtocolError:
        return
    assert codec.decode(codec.encode(message)) == message


class Heard:
    """A coordinator's shell that keeps what comes."""

    def __init__(self) -> None:
        self.frames: list[bytes] = []
        self.ended = asyncio.Event()

    def frame(self, connection: FrameProtocol, frame: bytes) -> None:
        self.frames.append(frame)

    def lost(self, connection: FrameProtocol) -> None:
        self.ended.set()


async def test_only_the_first_frame_of_a_connection_says_whose_it_is(launcher: Launcher) -> None:
    shell = launcher.door.launchers = Heard()
    target = launcher.target
    connection = await connect(target.host, target.port, TOKEN, lambda payload: None, lambda: None)
    # Frames of a session begin with a number, and so with any byte.
    frames = [b"hello", r.MARK + b" a number", b'["Ask" a number', b'["Elected" a number']

    for each in frames:
        connection.send(each)
    connection.close()

    await asyncio.wait_for(shell.ended.wait(), 10)
    assert shell.frames == frames
    assert launcher.asked == []


def test_a_challenge_is_never_repeated() -> None:
    challenges = {ServerHandshake(TOKEN).challenge for _ in range(100)}

    assert len(challenges) == 100
