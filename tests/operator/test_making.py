"""How pods are made: from a mould, a fair number at a time, and without hearing one's own echo."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, strategies as st

from dssync_operator import errors, resources
from dssync_operator.echoes import Echoes
from dssync_operator.maker import Made, PodMaker
from dssync_operator.metrics import Metrics
from dssync_operator.mould import Moulds
from dssync_operator.plan import NewPod
from dssync_operator.settings import Settings
from ground.models import TEMPLATE, make_spec_job
from ground.stub import server

NEW_PODS = st.builds(
    NewPod,
    slot=st.integers(0, 1999),
    incarnation=st.integers(0, 10_000),
    created_for=st.sampled_from(["Start", "Fill", "Replace"]),
    shunned=st.sampled_from([(), ("node-1",), ("node-1", "node-0")]),
)


@given(st.lists(NEW_PODS, min_size=1, max_size=5), st.sampled_from(["Lease", "Static"]))
def test_pod_from_a_mould_is_the_pod_that_would_be_built(wanted: list[NewPod], mode: str) -> None:
    given_worker = {
        "name": "worker",
        "args": ["0", "slot 1", "é\n"],
        "env": [{"name": "A", "value": "0"}],
    }
    template = {"metadata": {"labels": {"n": "0"}}, "spec": {"containers": [given_worker]}}
    job = make_spec_job(template=template, rendezvous={"mode": mode})
    moulds = Moulds(job, template, "hash")

    for new in wanted:
        assert json.loads(moulds.cast(new)) == resources.pod(job, template, "hash", new)


def owner_of(uid: str) -> dict[str, object]:
    return {"kind": "DSSyncJob", "uid": uid, "controller": True}


class Line:
    """The API server's end: pods made, how many requests were in flight, and what to refuse."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.in_flight = 0
        self.most = 0
        self.refused: Counter[str] = Counter()
        self.existing: dict[str, str] = {}

    async def answer(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            uid = self.existing[request.path.rsplit("/", 1)[1]]
            labels = {
                "dssync.io/job-uid": uid,
                "dssync.io/worker-index": "0",
                "dssync.io/incarnation": "0",
            }
            metadata = {
                "name": "x",
                "uid": "u",
                "labels": labels,
                "ownerReferences": [owner_of(uid)],
            }
            return web.json_response({"metadata": metadata})
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        name = (await request.json())["metadata"]["name"]
        await asyncio.sleep(0)
        self.in_flight -= 1
        if name in self.existing:
            return web.json_response({"reason": "AlreadyExists"}, status=409)
        if self.refused[name]:
            return web.json_response({"reason": "Forbidden", "message": "quota"}, status=403)
        self.names.append(name)
        metadata = {"name": name, "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
        return web.json_response({"metadata": metadata}, status=201)


async def make(line: Line, count: int, echoes: Echoes | None = None, **looks: Any) -> Made:
    async with server(line.answer) as cluster:
        maker = PodMaker(
            cluster,
            Settings(concurrency=16),
            Metrics(),
            echoes or Echoes(),
            lambda: looks.get("looks", 1),
        )
        wanted = [NewPod(slot, 0, "Start") for slot in range(count)]
        return await maker.make(make_spec_job(), TEMPLATE, wanted)


async def test_every_pod_is_made_once_and_known_by_its_uid() -> None:
    line = Line()

    made = await make(line, 50)

    assert sorted(line.names) == sorted(f"demo-w{slot}-0" for slot in range(50))
    assert {pod.uid for pod in made.pods} == {f"uid-{name}" for name in line.names}
    assert made.failure is None


@pytest.mark.parametrize(("looks", "most"), [(1, 16), (2, 3), (16, 1)])
async def test_job_has_all_requests_while_alone_and_few_beside_others(
    looks: int, most: int
) -> None:
    line = Line()

    await make(line, 60, looks=looks)

    assert line.most <= most
    assert line.most > most // 2


async def test_first_refusal_leaves_the_rest_for_later() -> None:
    line = Line()
    line.refused["demo-w3-0"] = 1

    made = await make(line, 500)

    assert isinstance(made.failure, errors.ForbiddenError)
    assert len(line.names) < 100


async def test_name_of_our_own_pod_is_success_and_a_strangers_is_stepped_over() -> None:
    line = Line()
    line.existing = {"demo-w0-0": "job-uid", "demo-w1-0": "somebody"}

    made = await make(line, 2)

    assert line.names == ["demo-w1-1"]
    assert {pod.uid for pod in made.pods} == {"u", "uid-demo-w1-1"}


async def test_creation_that_succeeded_is_an_echo_once_and_any_other_event_is_news() -> None:
    echoes = Echoes()

    await make(Line(), 1, echoes)

    assert not echoes.hears("MODIFIED", "ns", "demo-w0-0")
    assert echoes.hears("ADDED", "ns", "demo-w0-0")
    assert not echoes.hears("ADDED", "ns", "demo-w0-0")


async def test_creation_that_failed_or_was_somebody_elses_is_news() -> None:
    line, echoes = Line(), Echoes()
    line.refused["demo-w0-0"] = 1
    line.existing = {"demo-w1-0": "job-uid"}

    await make(line, 2, echoes)

    assert not echoes.hears("ADDED", "ns", "demo-w0-0")
    assert not echoes.hears("ADDED", "ns", "demo-w1-0")


def test_gap_of_the_watch_makes_everything_news() -> None:
    echoes = Echoes()
    echoes.expect("ns", "pod")

    echoes.forget()

    assert not echoes.hears("ADDED", "ns", "pod")
