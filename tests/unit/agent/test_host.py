"""A coordinator's shell with many launchers: order, and nobody who waits behind the others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from benchmarks.control.member import FakeMember
from benchmarks.control.server import TOKEN
from dssync.agent.door import Door
from dssync.agent.host import AT_ONCE, CoordinatorHost
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
from dssync.control.requests import Answer, Refused, Request

MEMBERS = 2 * AT_ONCE + 5
"""So many that what they are told at once takes several turns."""
ROUNDS = 5


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    async def respond(request: Request) -> Answer:
        return Refused("nothing is answered here")

    settings = ControlSettings(desired=MEMBERS, minimum=MEMBERS, lease_seconds=60.0)
    made = Door(respond)
    await made.open("127.0.0.1", 0, TOKEN)
    host = made.launchers = CoordinatorHost(Coordinator(1, settings), lambda note: None)
    host.start()
    yield made
    await made.close()
    await host.close()


async def test_everybody_is_told_everything_in_order_though_not_all_at_once(door: Door) -> None:
    loop = asyncio.get_running_loop()
    host, _, port = door.address.rpartition(":")
    members = [FakeMember(slot, loop.time) for slot in range(MEMBERS)]
    for member in members:
        await member.enter(host, int(port))

    # A member takes no assignment before it was told to start, and asks for its data after that.
    async with asyncio.timeout(30):
        await asyncio.gather(*(member.assigned.wait() for member in members))
        for member in members:
            member.register()
            member.counts = True
        for _ in range(ROUNDS):
            for member in members:
                member.apply(loop.time())
            await asyncio.gather(*(member.answered.wait() for member in members))

    assert {len(member.seen.waits_seconds) for member in members} == {ROUNDS}
    for member in members:
        member.close()
