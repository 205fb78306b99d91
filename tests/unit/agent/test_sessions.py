"""Sessions between a launcher and the coordinator's shell, as connections come and go."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
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
