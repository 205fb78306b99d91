"""The most that any client could do here: the operator's own pods, made by bare aiohttp."""

import asyncio
import time

import aiohttp
import msgspec

from benchmarks.operator.field import JOBS, control_plane, make_job
from dssync_operator import resources
from dssync_operator.job import parse_job
from dssync_operator.plan import NewPod

IN_FLIGHT = 64


def pods_per_second(count: int) -> float:
    """Make so many pods as fast as the API server takes them, on a fresh control plane."""
    with control_plane() as plane:
        path = f"{JOBS}/namespaces/default/dssyncjobs"
        _, manifest = plane.request("POST", path, make_job("ceiling", suspend=True))
        job = parse_job(manifest)
        pods = [
            msgspec.json.encode(resources.pod(job, job.spec.template, "", NewPod(slot, 0, "Start")))
            for slot in range(count)
        ]
        begin = time.perf_counter()
        asyncio.run(_post_all(plane.url, plane.tokens["admin"], pods))
        return count / (time.perf_counter() - begin)


async def _post_all(url: str, token: str, pods: list[bytes]) -> None:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    todo = iter(pods)
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=False)
    async with aiohttp.ClientSession(url, connector=connector, headers=headers) as session:

        async def lane() -> None:
            for pod in todo:
                async with session.post("/api/v1/namespaces/default/pods", data=pod) as answer:
                    if answer.status != 201:
                        raise RuntimeError(await answer.text())
                    await answer.read()

        await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
