"""What a leader makes of a renewal that fails, against a stub that fails as asked."""

import asyncio

import pytest
from aiohttp import web

from dssync_operator import errors
from dssync_operator.leader import Leader
from dssync_operator.settings import Settings
from ground.stub import Handler, server

SETTINGS = Settings(lease_namespace="default", identity="me")


class Turns:
    """Sleeps of a leader: each takes no time, and the last one never ends."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.over = asyncio.Event()

    async def sleep(self, _: float) -> None:
        if self.left == 0:
            self.over.set()
            await asyncio.Event().wait()
        self.left -= 1


def lease_of(holder: str, answers: dict[str, list[int]]) -> Handler:
    """A Lease whose requests get these codes, by method, and 200 when they are used up."""

    async def handle(request: web.Request) -> web.Response:
        codes = answers.get(request.method, [])
        code = codes.pop(0) if codes else 200
        if code != 200:
            return web.json_response({"reason": "Conflict" if code == 409 else ""}, status=code)
        spec = {"holderIdentity": holder}
        return web.json_response({"metadata": {"resourceVersion": "1"}, "spec": spec})

    return handle


async def lead(answers: dict[str, list[int]], turns: int) -> None:
    """Acquire a Lease that is ours already, then renew it so many times."""
    clock = Turns(turns)
    async with server(lease_of("me", answers)) as cluster:
        leader = Leader(cluster, SETTINGS, sleep=clock.sleep)
        await leader.acquire()
        keeping = asyncio.create_task(leader.keep())
        over = asyncio.create_task(clock.over.wait())
        await asyncio.wait({keeping, over}, return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if keeping.done():
            await keeping
        keeping.cancel()


async def test_conflict_of_our_own_making_is_no_loss_even_if_it_can_be_read_only_later() -> None:
    answers = {"PUT": [200, 409, 409, 200], "GET": [200, 503]}

    await lead(answers, turns=3)

    assert answers == {"PUT": [], "GET": []}


async def test_conflict_that_somebody_else_has_made_ends_the_leader() -> None:
    holders = iter(["me"])

    async def handle(request: web.Request) -> web.Response:
        if request.method == "PUT" and next(holders, None) is None:
            return web.json_response({"reason": "Conflict"}, status=409)
        holder = "" if request.method == "GET" and handled == [] else "other"
        handled.append(request.method)
        body = {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": holder}}
        return web.json_response(body)

    handled: list[str] = []
    async with server(handle) as cluster:
        leader = Leader(cluster, SETTINGS, sleep=Turns(9).sleep)
        await leader.acquire()
        with pytest.raises(errors.LeadershipLostError, match="another holder"):
            await leader.keep()


@pytest.mark.parametrize("first", [200, 404, 409], ids=["read", "to be made", "taken"])
async def test_candidate_is_ready_once_the_lease_has_answered(first: int) -> None:
    method = "PUT" if first == 409 else "GET"
    answers = {"GET": [503, 503]}
    answers[method] = [*answers.get(method, []), first]
    clock = Turns(2)
    async with server(lease_of("", answers)) as cluster:
        leader = Leader(cluster, SETTINGS, sleep=clock.sleep)
        before = leader.unhealthy()
        trying = asyncio.create_task(leader.acquire())
        over = asyncio.create_task(clock.over.wait())
        await asyncio.wait({trying, over}, return_when=asyncio.FIRST_COMPLETED)
        after = leader.unhealthy()
        trying.cancel()
        over.cancel()

    assert before is not None
    assert "no answer yet" in before
    assert after is None


async def test_candidate_whose_requests_fail_for_half_a_minute_is_not_ready(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = {"GET": [200, *[503] * 80]}
    now = [0.0]
    told = []

    async def sleep(seconds: float) -> None:
        told.append((now[0], leader.unhealthy()))
        now[0] += seconds
        if not answers["GET"]:
            await asyncio.Event().wait()

    caplog.set_level("INFO")
    async with server(lease_of("other", answers)) as cluster:
        leader = Leader(cluster, SETTINGS, clock=lambda: now[0], sleep=sleep)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await leader.acquire()

    first = min(at for at, said in told if said is not None)
    assert first == 30.5
    assert "503" in str(told[-1][1])
    assert len([each for each in caplog.records if each.name == "dssync_operator.leader"]) == 1
