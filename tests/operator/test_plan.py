"""What becomes of a template, and what pods are made of."""

from random import Random

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
