"""A coordinator's shell with many launchers: order, and nobody who waits behind the others."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from benchmarks.control.load import Load
from benchmarks.control.server import TOKEN
from dssync.agent.door import Door
from dssync.agent.host import AT_ONCE, CoordinatorHost
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import (
    Connected,
    ControlSettings,
    Disconnected,
    Effect,
    Event,
    Looked,
    Ticked,
)
from dssync.control.requests import Answer, Refused, Request

MEMBERS = 2 * AT_ONCE + 5
"""So many that what they are told at once takes several turns."""
ROUNDS = 5
PACE_SECONDS = 0.001
"""Shorter than any round: whoever has been answered goes on at once."""
PATIENCE_SECONDS = 60.0


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
    load = await asyncio.to_thread(work, door.address)

    # A member takes no assignment before it was told to start, and asks for its data after that.
    assert all(len(member.seen.waits_seconds) >= ROUNDS for member in load.members)


async def test_a_pause_counts_though_people_ask_first_after_it() -> None:
    now = 0.0
    settings = ControlSettings(desired=2, minimum=2, lease_seconds=5.0)
    coordinator = Coordinator(1, settings)
    host = CoordinatorHost(coordinator, lambda note: None, read=lambda: now)
    host.attach(m.Hello(0, "first", 1, ("", "", "")), lambda message: None)
    host.handle(Looked())
    before = host.missing

    now += 60.0
    host.status("job")

    assert not before
    assert [each.uid for each in host.missing] == ["first"]
    await host.close()


class Broken(Coordinator):
    """A coordinator with a fault that shows at a tick."""

    def handle(self, event: Event, now: float) -> list[Effect]:
        if isinstance(event, Ticked):
            raise KeyError("a fault")
        return super().handle(event, now)


async def test_a_coordinator_whose_clock_fails_says_so() -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    coordinator = Broken(1, ControlSettings(desired=1, minimum=1))
    host = CoordinatorHost(coordinator, lambda note: None, on_failed=failed.set_result)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    host.start()

    reason = await asyncio.wait_for(failed, 10)
    assert "KeyError('a fault')" in reason
    assert len(told) == 1, "with its traceback"
    await host.close()


async def test_pauses_shorter_than_a_lease_age_what_the_arbiter_said() -> None:
    now = 0.0
    coordinator = Coordinator(1, ControlSettings(desired=2, minimum=2, lease_seconds=2.0))
    host = CoordinatorHost(coordinator, lambda note: None, read=lambda: now)
    host.handle(Connected(m.Hello(1, "second", 1, ("", "", ""))))
    host.handle(Disconnected(1, "second"))
    for _ in range(10):
        now += 0.1
        host.handle(Ticked())
    host.handle(Looked())
    decided = []

    for _ in range(4):
        now += 1.9
        host.handle(Ticked())
        decided.append(coordinator.job.may_decide(host._now()))

    assert [each.uid for each in host.missing] == ["second"]
    assert decided == [True, True, False, False]
    await host.close()


def work(address: str) -> Load:
    """Let members do rounds without a pause, each as soon as the coordinator lets it."""
    host, _, port = address.rpartition(":")
    load = Load(MEMBERS, (host, int(port)), TOKEN, beat_seconds=0.25)
    load.run_until(lambda member: member.is_ready, PATIENCE_SECONDS)
    load.register()
    load.measure()
    load.keep_pace([time.time()] * MEMBERS, PACE_SECONDS)
    load.run_until(lambda member: len(member.seen.waits_seconds) >= ROUNDS, PATIENCE_SECONDS)
    load.close()
    return load
