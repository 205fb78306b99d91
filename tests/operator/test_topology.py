"""What is remembered of nodes."""

import asyncio

from aiohttp import web

from dssync_operator.topology import KEEP_SECONDS, READS, Topology
from ground.memory import remembered
from ground.stub import server


async def test_node_is_read_once_in_a_while_and_forgotten_when_nobody_asks_any_more() -> None:
    asked = []

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path.rpartition("/")[2])
        return web.json_response({"metadata": {"labels": {"zone": "a"}}})

    now = [1000.0]
    async with server(handle) as cluster:
        topology = Topology(cluster, ("zone",), clock=lambda: now[0])
        paths = await topology.paths((), ["node-1", "node-2"])
        now[0] += KEEP_SECONDS - 1
        await topology.paths((), ["node-1", "node-2"])
        now[0] += 1
        await topology.paths((), ["node-2"])

    assert paths == {"node-1": "a", "node-2": "a"}
    assert asked == ["node-1", "node-2", "node-2"]
    assert "node-1" not in remembered(topology)


async def test_nodes_of_a_large_job_are_read_beside_each_other_and_not_all_at_once() -> None:
    reading, most = 0, 0

    async def handle(request: web.Request) -> web.Response:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0.01)
        reading -= 1
        return web.json_response({"metadata": {"labels": {"zone": "a"}}})

    async with server(handle) as cluster:
        paths = await Topology(cluster, ("zone",)).paths((), [f"n{each}" for each in range(64)])

    assert len(paths) == 64
    assert 1 < most <= READS


async def test_node_that_may_not_be_read_is_known_by_name_only() -> None:
    async def handle(request: web.Request) -> web.Response:
        return web.json_response({"reason": "Forbidden"}, status=403)

    async with server(handle) as cluster:
        paths = await Topology(cluster, ("zone",)).paths((), ["n1"])

    assert paths == {"n1": "-"}
