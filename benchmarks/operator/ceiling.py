"""The most that a client could do here: the operator's own pods, made without an operator.

Two clients, of which the faster one counts: bare aiohttp, and the official asynchronous client.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import aiohttp
import msgspec
from kubernetes.aio import client, config

from benchmarks.operator.field import JOBS, control_plane, make_job
from dssync_operator import resources
from dssync_operator.cluster import METADATA_ONLY
from dssync_operator.job import parse_job
from dssync_operator.plan import NewPod
from ground.control_plane import ControlPlane

IN_FLIGHT = 64
ASKED = "fieldManager=ceiling&fieldValidation=Ignore"
Post = Callable[[bytes], Awaitable[None]]
Client = Callable[[ControlPlane], AbstractAsyncContextManager[Post]]


def pods_per_second(open_client: Client, count: int) -> float:
    """Make so many pods as fast as the API server takes them, on a fresh control plane."""
    with control_plane() as plane:
        path = f"{JOBS}/namespaces/default/dssyncjobs"
        _, manifest = plane.request("POST", path, make_job("ceiling", suspend=True))
        job = parse_job(manifest)
        pods = [
            msgspec.json.encode(resources.pod(job, job.spec.template, "", NewPod(slot, 0, "Start")))
            for slot in range(count)
        ]
        return count / asyncio.run(_post_all(open_client(plane), pods))


async def _post_all(opened: AbstractAsyncContextManager[Post], pods: list[bytes]) -> float:
    todo = iter(pods)
    async with opened as post:

        async def lane() -> None:
            for pod in todo:
                await post(pod)

        begin = time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
        return time.perf_counter() - begin


@asynccontextmanager
async def bare_aiohttp(plane: ControlPlane) -> AsyncIterator[Post]:
    """POST what the operator posts and read the answer, no more."""
    token = plane.tokens["admin"]
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        **METADATA_ONLY,
    }
    connector = aiohttp.TCPConnector(limit=IN_FLIGHT, ssl=False)
    async with aiohttp.ClientSession(plane.url, connector=connector, headers=headers) as session:

        async def post(pod: bytes) -> None:
            async with session.post(f"/api/v1/namespaces/default/pods?{ASKED}", data=pod) as answer:
                if answer.status != 201:
                    raise RuntimeError(await answer.text())
                await answer.read()

        yield post


@asynccontextmanager
async def official_client(plane: ControlPlane) -> AsyncIterator[Post]:
    """The client that most Python operators use, with its models."""
    await config.load_kube_config(str(plane.kubeconfig))
    async with client.ApiClient() as connection:
        api = client.CoreV1Api(connection)

        async def post(pod: bytes) -> None:
            await api.create_namespaced_pod("default", json.loads(pod))

        yield post
