"""What is left of a job in the operator's memory when the job is gone: nothing."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from ground.control_plane import ControlPlane
from ground.inprocess import Harness, harness
from ground.memory import remembered
from ground.scene import Scene, make_job

pytestmark = pytest.mark.usefixtures("quiet_lines")


def of_the_job(operator: Harness, uid: str) -> list[str]:
    """What a job has left; names of pods are not meant, which are kept until a watch tells them."""
    return sorted(text for text in remembered(operator.reconciler) if uid in text)


@asynccontextmanager
async def looked_at(plane: ControlPlane) -> AsyncIterator[tuple[Scene, Harness, str]]:
    """A job that an operator has looked at, the operator, and the job's uid."""
    scene = Scene(plane)
    scene.create(make_job(replicas=2))
    async with harness(plane, time.time) as operator:
        await operator.reconciler.look((scene.namespace, "demo"))
        yield scene, operator, scene.job()["metadata"]["uid"]


async def test_job_that_is_gone_leaves_nothing_in_memory(quiet_plane: ControlPlane) -> None:
    async with looked_at(quiet_plane) as (scene, operator, uid):
        before = of_the_job(operator, uid)

        scene.plane.request("DELETE", f"{scene.jobs}/demo")
        await operator.reconciler.look((scene.namespace, "demo"))

        assert before != []
        assert of_the_job(operator, uid) == []
        assert operator.reconciler.known() == frozenset()


async def test_job_that_is_made_anew_under_its_name_is_another(quiet_plane: ControlPlane) -> None:
    async with looked_at(quiet_plane) as (scene, operator, uid):
        scene.plane.request("DELETE", f"{scene.jobs}/demo")
        scene.create(make_job(replicas=2))
        await operator.reconciler.look((scene.namespace, "demo"))

        texts = remembered(operator.reconciler)
        assert uid not in texts
        assert scene.job()["metadata"]["uid"] in texts
