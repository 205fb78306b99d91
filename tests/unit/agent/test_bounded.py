"""Arbiters that neither answer nor fail, and what waits for them."""

import asyncio

import pytest

from dssync.agent import recorder
from dssync.agent.arbiters import Record
from dssync.agent.bounded import MOST_CALLS, BoundedArbiter
from dssync.agent.campaign import Campaign
from dssync.agent.peers import Peers
from dssync.agent.recorder import Recorder
from dssync.control import ballots as b
from dssync.control.ballots import ElectionSettings
from dssync.control.election import Election
from dssync.control.peers import Leader
from dssync.control.takeover import Launcher
from dssync.errors import ArbiterError

PATIENCE_SECONDS = 10.0
ME = Launcher(0, "me", "", "")


class Silent:
    """An arbiter that answers when it is let."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked = 0

    async def read(self) -> Record:
        self.asked += 1
        await self.answers.wait()
        return Record("1")

    async def swap(self, expected: Record, new: Record) -> Record | None:
        await self.read()
        return new


class Faulty:
    """An arbiter with a fault of its program."""

    async def read(self) -> Record:
        raise KeyError("metadata")

    async def swap(self, expected: Record, new: Record) -> Record | None:
        return await self.read()


async def test_a_call_that_is_not_answered_fails() -> None:
    arbiter = BoundedArbiter(Silent(), call_seconds=0.01)

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ArbiterError, match=r"not answered for 0\.01 s"):
            await arbiter.read()
        with pytest.raises(ArbiterError):
            await arbiter.swap(Record(), Record())


async def test_any_fault_of_an_arbiter_is_one() -> None:
    arbiter = BoundedArbiter(Faulty())

    with pytest.raises(ArbiterError, match="KeyError"):
        await arbiter.read()
    with pytest.raises(ArbiterError, match="KeyError"):
        await arbiter.swap(Record(), Record())


async def test_calls_that_hang_do_not_pile_up_and_are_asked_again_afterwards() -> None:
    silent = Silent()
    arbiter = BoundedArbiter(silent, call_seconds=0.01)

    async with asyncio.timeout(PATIENCE_SECONDS):
        for _ in range(3 * MOST_CALLS):
            with pytest.raises(ArbiterError):
                await arbiter.read()
        asked = silent.asked
        silent.answers.set()
        await asyncio.gather(*arbiter._calls)
        record = await arbiter.read()

    assert asked == MOST_CALLS
    assert record == Record("1")


async def test_an_arbiter_that_hangs_does_not_hold_up_the_election() -> None:
    nobody = asyncio.Event()
    loop = asyncio.get_running_loop()
    election = Election(ME, ElectionSettings(), loop.time())
    election.leader = Leader(1, "lost", "")

    def perform(effect: b.Effect) -> None:
        if isinstance(effect, b.NobodyLeads):
            nobody.set()

    peers = Peers("me", b"", lambda answer: None)
    campaign = Campaign(election, BoundedArbiter(Silent(), 0.01), peers, perform, print)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await nobody.wait()
    await campaign.close()


async def test_an_arbiter_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder, "FINISH_SECONDS", 0.05)
    mine = Record("1", "me", 1)
    last = Recorder(BoundedArbiter(Silent(), 0.01), mine, dict, lambda sizes: None)

    async with asyncio.timeout(PATIENCE_SECONDS):
        with pytest.raises(ArbiterError):
            await last.finish()
