"""Which slots are filled and which pods go, case by case."""

import pytest

from dssync_operator.plan import Seen, plan
from dssync_operator.record import View
from ground.models import START, make_spec_job
from ground.world import World


def test_new_job_gets_one_pod_for_each_replica_in_the_lowest_slots() -> None:
    decided = plan(Seen(make_spec_job(replicas=3), (), None), START)

    assert [(new.slot, new.incarnation) for new in decided.create] == [(0, 0), (1, 0), (2, 0)]


def test_scaled_down_job_keeps_its_pods_for_the_stabilisation_window() -> None:
    world = World({"replicas": 4, "elastic": {"minReplicas": 1, "stabilizationSeconds": 60}})
    world.look()
    world.edit(replicas=2)

    waiting = world.look()
    assert waiting.delete == ()
    assert waiting.wake_at == world.now + 60
    world.now += 60
    assert len(world.look().delete) == 2


def test_wish_that_returns_within_the_window_drains_nobody() -> None:
    world = World({"replicas": 4, "elastic": {"minReplicas": 1, "stabilizationSeconds": 60}})
    world.look()
    world.edit(replicas=2)
    world.look()
    world.now += 59
    world.edit(replicas=4)
    world.look()
    world.now += 59
    world.edit(replicas=2)

    assert world.look().delete == ()


def test_pending_pods_are_drained_before_running_ones() -> None:
    world = World({"replicas": 3, "elastic": {"minReplicas": 1, "stabilizationSeconds": 0}})
    world.look()
    world.run("demo-w1-0")
    world.run("demo-w2-0")
    world.edit(replicas=2)

    assert [pod.slot for pod in world.look().delete] == [0]


@pytest.mark.parametrize(("listed", "drained"), [((1, 2), 0), ((2,), 2)])
def test_pods_that_take_no_part_yet_are_drained_before_those_that_train(
    listed: tuple[int, ...], drained: int
) -> None:
    world = World({"replicas": 3, "elastic": {"minReplicas": 1, "stabilizationSeconds": 0}})
    world.look()
    for slot in range(3):
        world.run(f"demo-w{slot}-0")
    world.view = View(term=1, sequence=2, pods=2, workers=2)
    # Where not all are listed, nobody can be called idle.
    world.launchers = tuple(world.pods[f"demo-w{slot}-0"].uid for slot in listed)
    world.edit(replicas=2)

    assert [pod.slot for pod in world.look().delete] == [drained]


def test_static_rendezvous_never_drains_its_host_first() -> None:
    world = World(
        {
            "replicas": 3,
            "elastic": {"minReplicas": 1, "stabilizationSeconds": 0},
            "rendezvous": {"mode": "Static"},
        }
    )
    world.look()
    world.run("demo-w1-0")
    world.run("demo-w2-0")
    world.edit(replicas=2)

    assert [pod.slot for pod in world.look().delete] == [2]


def test_all_does_not_wait_for_slots_that_were_scaled_away() -> None:
    world = World({"replicas": 3, "elastic": {"minReplicas": 1, "stabilizationSeconds": 0}})
    world.look()
    world.edit(replicas=2)
    world.look()
    for pod in world.live():
        world.end(pod.name, 0, "Done")

    world.look()

    assert world.parsed().is_true("Complete")
