"""Jobs with a coordinator at a fixed endpoint: its host is lost, comes back, or is told to go."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from dssync.agent import office
from dssync.agent.coordination import Coordination, Handlers
from dssync.agent.history import ViewLog
from dssync.agent.metrics import Metrics
from dssync.agent.report import Reporter
from dssync.agent.settings import Command, ControlSettings, JobSettings, Settings
from dssync.control import messages as m
from dssync.control.address import address_of

PATIENCE_SECONDS = 10.0


@dataclass
class Side:
    """One launcher's part in the control plane, and what it tells the launcher."""

    slot: int
    target: str
    terms: list[int] = field(default_factory=list)
    again: int = 0
    fresh: int = 0
    given_up: list[str] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        handlers = Handlers(
            hello=lambda: m.Hello(self.slot, f"pod{self.slot}", 1, ("", "", "")),
            deliver=lambda message: None,
            on_term=self._on_term,
            on_again=self._on_again,
            on_fresh=self._on_fresh,
            on_fenced=lambda: None,
            on_nobody=lambda: None,
            on_given_up=self.given_up.append,
            on_answered=lambda seconds: None,
            log=ViewLog(None),
        )
        control = ControlSettings(arbiter_target=self.target)
        settings = Settings(
            Command("script", "x", ()), JobSettings(slot=self.slot), control=control
        )
        self.coordination = Coordination(settings, handlers, Reporter(Metrics()))
        await self.coordination.open()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def _on_term(self, term: int) -> None:
        self.terms.append(term)
        self.changed.set()

    def _on_again(self) -> None:
        self.again += 1
        self.changed.set()

    def _on_fresh(self) -> None:
        self.fresh += 1
        self.changed.set()


@dataclass
class Pair:
    host: Side
    follower: Side


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        target = address_of("127.0.0.1", free.getsockname()[1])
    made = Pair(Side(0, target), Side(1, target))
    for each in (made.host, made.follower):
        await each.open()
        await each.until(lambda each=each: bool(each.terms))  # type: ignore[misc]
    yield made
    await made.follower.coordination.close()
    await made.host.coordination.close()


async def test_who_has_lost_the_host_for_too_long_gives_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.follower.coordination.measure()
    monkeypatch.setattr(office, "REACH_SECONDS", 0.1)
    await pair.host.coordination.close()

    async with asyncio.timeout(PATIENCE_SECONDS):
        while not pair.follower.given_up:
            pair.follower.coordination.measure()  # As with each heartbeat.
            await asyncio.sleep(0.02)

    assert "no coordinator answered" in pair.follower.given_up[0]


async def test_a_host_that_is_linked_is_not_given_up(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(office, "REACH_SECONDS", -1.0)

    pair.follower.coordination.measure()

    assert pair.follower.given_up == []


async def test_a_host_that_comes_back_begins_a_later_term(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pair.follower.terms[0]
    await pair.host.coordination.close()

    pair.host = Side(0, pair.host.target)
    monkeypatch.setattr(office, "time", SimpleNamespace(time=lambda: first + 5.0))
    await pair.host.open()
    await pair.follower.until(lambda: len(pair.follower.terms) == 2)

    assert pair.follower.terms[1] > first
    assert (pair.follower.again, pair.follower.fresh) == (0, 0), "its members report"


async def test_a_host_that_is_told_to_go_has_no_successor_to_wait_for(pair: Pair) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()

    await pair.host.coordination.hand_over()

    assert loop.time() - began < 1.0
    assert not pair.follower.again
