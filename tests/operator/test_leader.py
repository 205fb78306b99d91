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
