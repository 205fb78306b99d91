"""What is remembered of nodes."""

from aiohttp import web

from dssync_operator.topology import KEEP_SECONDS, Topology
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
