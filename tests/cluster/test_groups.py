"""Groups on a cluster: they follow the racks, and a pod's death costs its group one retry."""

import statistics

import pytest

from benchmarks.reform.records import first_hit, reformed_seconds
from cluster.field import Field, Manifest, uid_of
from cluster.timeline import Timeline
from cluster.trainers import Trainers, trainers
from dssync import contract
from ground.kind.cluster import PLACES

KILLS = 5


@pytest.fixture(autouse=True)
def _this_machine(field: Field) -> None:
    if field.on_node is None:
        pytest.skip("nodes of this cluster are not on this machine")


def test_groups_of_mode_cross_follow_the_racks_of_the_nodes(field: Field) -> None:
    with trainers(field, mode="cross") as run:
        rack_of_slot = {
            pod["metadata"]["labels"][contract.LABEL_SLOT]: PLACES[pod["spec"]["nodeName"]][
                "example.com/rack"
            ]
            for pod in field.live()
        }
        for number, groups in run.groups(periods=2).items():
            racks = [[rack_of_slot[m.split(".")[0]] for m in group] for group in groups]
            mixed = [sorted(group) for group in racks if len(set(group)) > 1]
            assert mixed == [["r1", "r2"]], (number, groups)
        assert not run.wrong()


def reform(field: Field, run: Trainers, victim: Manifest) -> float:
    """Kill a pod and return when the last survivor of a hit group had the right result."""
    members, history = run.of_pod(victim), run.history
    survivors = frozenset(run.members).difference(members)
    standing = [pod for pod in field.live() if uid_of(pod) != uid_of(victim)]

    with field.steady(standing):
        killed = run.kill(victim)

        def noticed() -> bool:
            return all(first_hit(history, member, survivors) is not None for member in members)

        run.until(noticed, f"rounds without {members}")
        with run.told:
            hits = [hit for m in members if (hit := first_hit(history, m, survivors)) is not None]
            taken = max(reformed_seconds(history, hit, members, killed) for hit in hits)
        run.until_quiet()
    return taken


def test_a_killed_pod_costs_its_group_one_retry_with_the_right_result(
    field: Field, timeline: Timeline
) -> None:
    taken = timeline.measured["kill of a pod to re-formed"] = []
    with trainers(field, mode="pool") as run:
        for turn in range(KILLS):
            others = [pod for pod in field.live() if uid_of(pod) != field.coordinator()]
            taken.append(reform(field, run, others[turn % len(others)]))
        assert not run.wrong()

    assert statistics.median(taken) <= 1.0
