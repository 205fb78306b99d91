"""Sessions between a launcher and the coordinator's shell, as connections come and go."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.agent.uplink import LinkEvents, LocalUplink, RemoteUplink
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
from dssync.control.peers import Leader
from dssync.control.requests import Answer, Refused, Request
from dssync.control.transport import connect

TOKEN = b"token"


class Host:
    """A coordinator, and a launcher that connects to it by hand."""

    def __init__(self) -> None:
        self.coordinator = CoordinatorHost(
            Coordinator(1, ControlSettings(desired=1, minimum=1)), lambda note: None
        )
        self.door = Door(_refuse)

    async def introduced(self, session_name: int) -> int:
        """Connect, say which session there is, and hang up; return the one that is answered."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def heard(frame: bytes) -> None:
            if not answer.done():
                answer.set_result(frame)

        host, _, port = self.door.address.rpartition(":")
        connection = await connect(host, int(port), TOKEN, heard, lambda: None)
        hello = m.LAUNCHER.encode(m.Hello(0, "pod0", 1, ("", "", ""))).decode()
        connection.send(json.dumps([hello, session_name, 1]).encode())
        async with asyncio.timeout(10):
            name, _ = json.loads(await answer)
        connection.close()
        return int(name)

    async def forgets(self) -> None:
        """Wait until the coordinator has given the launcher up: it looks once in a tick."""
        async with asyncio.timeout(10):
            async for _ in _ticks():
                if not self.coordinator.slots:
                    return


async def _refuse(request: Request) -> Answer:
    return Refused("nothing is answered here")


async def _ticks() -> AsyncIterator[None]:
    while True:
        await asyncio.sleep(0.02)
        yield


@pytest.fixture
async def host() -> AsyncIterator[Host]:
    made = Host()
    await made.door.open("127.0.0.1", 0, TOKEN)
    made.door.launchers = made.coordinator
    made.coordinator.start()
    yield made
    await made.door.close()
    await made.coordinator.close()


async def test_a_session_whose_beginning_the_launcher_did_not_hear_is_not_continued(
    host: Host,
) -> None:
    first = await host.introduced(0)
    await host.forgets()

    lost = await host.introduced(first)
    after = await host.introduced(first)

    assert len({first, lost, after}) == 3


async def test_a_session_that_the_launcher_has_is_continued(host: Host) -> None:
    first = await host.introduced(0)

    assert await host.introduced(first) == first


async def test_who_wants_a_coordinator_of_another_term_is_sent_away(host: Host) -> None:
    ended = asyncio.Event()
    where, _, port = host.door.address.rpartition(":")
    connection = await connect(where, int(port), TOKEN, lambda frame: None, ended.set)
    hello = m.LAUNCHER.encode(m.Hello(0, "pod0", 1, ("", "", ""))).decode()

    connection.send(json.dumps([hello, 0, 2]).encode())

    async with asyncio.timeout(10):
        await ended.wait()
    assert host.coordinator.slots == []


async def test_a_replaced_uplink_delivers_nothing_more(host: Host) -> None:
    heard: list[m.ToLauncher] = []
    linked = asyncio.Event()

    def deliver(message: m.ToLauncher) -> None:
        if isinstance(message, m.PleaseDrain):
            heard.append(message)
            uplink.end()

    events = LinkEvents(
        deliver, lambda term, first: linked.set(), _fails, _fails, _fails, lambda seconds: None
    )
    leader = Leader(1, "", host.door.address)
    hello = m.Hello(0, "pod0", 1, ("", "", ""))
    uplink = RemoteUplink(leader, TOKEN, lambda: hello, events, lease_seconds=60.0)
    async with asyncio.timeout(10):
        await linked.wait()
        for _ in range(3):
            host.coordinator.tell(0, m.PleaseDrain())
        async for _ in _ticks():
            if not host.coordinator.others:
                break
        await uplink.close()

    assert heard == [m.PleaseDrain()]


async def test_an_uplink_to_a_coordinator_that_stepped_down_delivers_nothing_more(
    host: Host,
) -> None:
    heard: list[m.ToLauncher] = []
    uplink = LocalUplink(host.coordinator, m.Hello(0, "pod0", 1, ("", "", "")), heard.append)
    turned: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    host.coordinator.tell(0, m.PleaseDrain())
    uplink.end()
    asyncio.get_running_loop().call_soon(turned.set_result, None)
    await turned

    assert heard == []


def _fails() -> None:
    raise AssertionError("what happens to a replaced uplink is no news")
