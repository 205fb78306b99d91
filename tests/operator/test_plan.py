"""What becomes of a template, and what pods are made of."""

from random import Random
from typing import Any

import pytest

from dssync_operator.job import digest
from dssync_operator.plan import Seen, plan
from ground.models import BAD_TEMPLATE, OTHER_TEMPLATE, START, TEMPLATE, make_spec_job
from ground.world import CrashError, World


def test_changed_template_of_a_running_job_is_not_taken_over() -> None:
    world = World({"replicas": 1})
    world.look()
    before = world.parsed().template_hash
    world.edit(template={"spec": {"containers": [{"name": "worker", "image": "new"}]}})

    world.look()

    assert world.parsed().conditions["Accepted"].reason == "TemplateChangedWhileRunning"
    assert world.parsed().template_hash == before


def test_invalid_template_makes_no_pods_until_it_is_mended() -> None:
    job = make_spec_job(replicas=1)

    decided = plan(Seen(job, (), None, template_problem="spec.containers: no image"), START)

    assert decided.create == ()
    assert decided.status.conditions["Accepted"].reason == "InvalidPodTemplate"


def test_template_that_was_changed_during_a_drain_is_looked_at_as_soon_as_nothing_is_left() -> None:
    world = World({"replicas": 1})
    world.look()
    world.run("demo-w0-0")
    world.edit(suspend=True)
    world.look()
    world.edit(template=OTHER_TEMPLATE)
    world.look()
    world.vanish("demo-w0-0")

    drained = world.look()
    world.look()

    assert drained.wake_at == world.now
    assert world.parsed().conditions["Accepted"].true


def test_edit_is_not_taken_over_by_a_job_that_resumes_before_its_last_pod_is_gone() -> None:
    world = World({"replicas": 1})
    world.look()
    world.run("demo-w0-0")
    world.edit(template=BAD_TEMPLATE)
    world.look()
    world.edit(suspend=True)
    world.look()
    world.edit(suspend=False)
    world.vanish("demo-w0-0")

    world.settle()

    assert world.made_of == {digest(TEMPLATE)}
    assert len(world.live()) == 1
    assert world.kept == TEMPLATE
    assert "still made from the old one" in world.parsed().conditions["Accepted"].message


def test_nothing_is_made_from_an_edit_that_runs_beside_pods_of_a_template_that_is_lost() -> None:
    world = World({"replicas": 2})
    world.look()
    for name in list(world.pods):
        world.run(name)
    world.edit(template=OTHER_TEMPLATE)
    world.look()
    world.kept = None
    world.vanish("demo-w0-0")

    world.settle()

    said = world.parsed().conditions["Accepted"]
    assert world.made_of == {digest(TEMPLATE)}
    assert (said.true, said.reason) == (False, "TemplateChangedWhileRunning")
    assert "no pod is made" in said.message
    world.edit(template=TEMPLATE)
    world.settle()
    assert len(world.live()) == 2
    assert world.kept == TEMPLATE


@pytest.mark.parametrize(
    ("edit", "made"), [(OTHER_TEMPLATE, {digest(OTHER_TEMPLATE)}), (BAD_TEMPLATE, set())]
)
def test_edit_is_checked_and_taken_over_where_neither_pods_nor_their_template_are_left(
    edit: dict[str, Any], made: set[str]
) -> None:
    world = World({"replicas": 1})
    world.look()
    world.edit(template=edit)
    world.kept = None
    world.pods.clear()
    world.made_of.clear()

    world.settle()

    assert world.made_of == made
    assert world.parsed().conditions["Accepted"].true == bool(made)
    assert world.parsed().template_hash == digest(edit)


@pytest.mark.parametrize("suspended_before", [False, True])
def test_edit_waits_for_pods_that_the_status_does_not_know_of(suspended_before: bool) -> None:
    world = World({"replicas": 2})
    if suspended_before:
        world.edit(suspend=True)
        world.look()
    world.edit(suspend=False, template=OTHER_TEMPLATE)
    with pytest.raises(CrashError):
        world.look(effects_before_crash=2)
    world.edit(template=TEMPLATE)

    world.look()

    assert len(world.live()) == 2
    assert world.made_of == {digest(OTHER_TEMPLATE)}
    assert world.kept == OTHER_TEMPLATE
    assert "still made from the old one" in world.parsed().conditions["Accepted"].message


def test_template_that_the_service_keeps_and_that_is_not_the_accepted_one_makes_no_pods() -> None:
    world = World({"replicas": 2})
    world.look()
    world.edit(template=OTHER_TEMPLATE)
    world.kept = BAD_TEMPLATE
    world.vanish("demo-w0-0")

    world.settle()

    assert world.made_of == {digest(TEMPLATE)}
    assert len(world.live()) == 1


def test_paths_that_do_not_fit_into_the_lease_are_left_out_and_the_status_says_so() -> None:
    random = Random(1)
    paths = {
        f"node-{random.getrandbits(400):x}": f"{random.getrandbits(400):x}" for _ in range(999)
    }
    job = make_spec_job(replicas=1, template={"spec": {}})

    decided = plan(Seen(job, (), None, nodes=paths), START)
    short = plan(Seen(job, (), None, nodes={"node-a": "rack-7"}), START)

    assert decided.wanted is not None
    assert decided.wanted.nodes == {}
    assert decided.status.conditions["Accepted"].true
    assert "the paths of 999 nodes do not fit" in decided.status.conditions["Accepted"].message
    assert short.wanted is not None
    assert short.wanted.nodes == {"node-a": "rack-7"}
    assert "do not fit" not in short.status.conditions["Accepted"].message
