"""Names that do not resolve yet, and addresses that change or do not answer.

The resolver is the seam: it answers what a test says. Sockets and launchers' parts are real.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.agent.naming import address_towards
from dssync.agent.uplink import LinkEvents, RemoteUplink
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
from dssync.control.peers import Leader
from dssync.control.requests import Answer, Refused, Request
from dssync.control.transport import connect
from dssync.errors import UsageError

NAME = "coordinator.job"
TOKEN = b"token"
UNKNOWN: tuple[str, ...] = ()
PATIENCE_SECONDS = 10.0
T = TypeVar("T")


class NamedLoop(asyncio.SelectorEventLoop):
    """An event loop whose resolver answers in turn what it is given, the last answer for ever."""

    def __init__(self, *answers: tuple[str, ...] | None) -> None:
        super().__init__()
        self.answers = list(answers)
        self.asked = 0
        self.asked_in_vain = asyncio.Event()

    async def getaddrinfo(self, host: Any, port: Any, **how: Any) -> Any:  # type: ignore[override]
        """Answer with addresses, with nothing, or, where the answer is None, never."""
        if host != NAME:
            return await super().getaddrinfo(host, port, **how)
        self.asked += 1
        addresses = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if addresses is None:
            self.asked_in_vain.set()
            await asyncio.Event().wait()
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET, how.get("type") or socket.SOCK_STREAM, 0, "", (each, port))
            for each in addresses
        ]


def played(loop: NamedLoop, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await work()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(bounded())


def test_a_name_that_does_not_resolve_yet_is_waited_for() -> None:
    said: list[str] = []
    loop = NamedLoop(UNKNOWN, UNKNOWN, ("127.0.0.1",))

    address = played(loop, lambda: address_towards(NAME, 7000, said.append, PATIENCE_SECONDS))

    assert address == "127.0.0.1"
    assert said == ["Name or service not known"]  # once, not at each attempt


@pytest.mark.parametrize(
    ("answer", "words"), [(UNKNOWN, "Name or service not known"), (None, "the resolver is silent")]
)
def test_a_name_that_never_resolves_costs_one_sentence(
    answer: tuple[str, ...] | None, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        played(NamedLoop(answer), lambda: address_towards(NAME, 7000, print, 0.3))

    sentence = str(caught.value)
    assert f"host {NAME!r} of the rendezvous cannot be reached after 0.3 s: {words};" in sentence
    assert "--local-addr" in sentence
    assert "\n" not in sentence


def test_each_attempt_to_connect_takes_the_names_address_anew() -> None:
    loop = NamedLoop(UNKNOWN, ("127.0.0.2",), UNKNOWN, ("127.0.0.1",))

    assert played(loop, _linked) == 1
    assert loop.asked == 4


def test_an_uplink_says_why_it_does_not_reach_its_coordinator() -> None:
    loop = NamedLoop(UNKNOWN, None)

    async def work() -> str:
        leader = Leader(0, "", f"{NAME}:7000")
        uplink = RemoteUplink(leader, TOKEN, _hello, _events(_ignore), lease_seconds=2.0)
        await loop.asked_in_vain.wait()
        await uplink.close()
        return uplink.trouble

    assert played(loop, work) == "Name or service not known"


def test_of_several_addresses_one_that_does_not_answer_holds_up_nobody() -> None:
    async def work() -> int:
        with _silent("127.0.0.2", 0) as port:
            door = await _open(port)
            try:
                connection = await connect(NAME, port, TOKEN, _ignore, lambda: None, 2.0)
                connection.close()
            finally:
                await door.close()
            return port

    assert played(NamedLoop(("127.0.0.2", "127.0.0.1")), work)


async def _linked() -> int:
    """Link to a coordinator that listens on 127.0.0.1 alone; return its term."""
    door = await _open(0)
    host = CoordinatorHost(Coordinator(1, ControlSettings(desired=1, minimum=1)), lambda note: None)
    host.start()
    door.launchers = host
    linked: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    leader = Leader(0, "", f"{NAME}:{door.address.rpartition(':')[2]}")
    uplink = RemoteUplink(leader, TOKEN, _hello, _events(linked.set_result), lease_seconds=2.0)
    term = await linked
    await uplink.close()
    await door.close()
    await host.close()
    return term


def _events(on_linked: Callable[[int], None]) -> LinkEvents:
    return LinkEvents(
        deliver=_ignore,
        on_linked=lambda term, _: on_linked(term),
        on_lost=_nothing,
        on_fresh=_nothing,
        on_fenced=_nothing,
        on_answered=_ignore,
    )


async def _open(port: int) -> Door:
    door = Door(_refuse)
    await door.open("127.0.0.1", port, TOKEN)
    return door


async def _refuse(request: Request) -> Answer:
    return Refused("nothing is answered here")


def _hello() -> m.Hello:
    return m.Hello(0, "pod0", 1, ("", "", ""))


def _ignore(_: object) -> None:
    pass


def _nothing() -> None:
    pass


@contextlib.contextmanager
def _silent(host: str, port: int) -> Iterator[int]:
    """Listen where nobody ever answers: the queue of connections is full, the next one waits."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((host, port), backlog=0))
        bound = int(listener.getsockname()[1])
        for _ in range(2):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, bound))
        yield bound
