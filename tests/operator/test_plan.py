"""What becomes of a template, and what pods are made of."""

from dssync_operator.plan import Seen, plan
from ground.models import OTHER_TEMPLATE, START, make_spec_job
from ground.world import World


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
