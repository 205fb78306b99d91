"""Undisturbed rounds: the groups are the schedule's, the values are numpy's."""

import json
from collections.abc import Sequence

import pytest

from dssync.schedule import Layout, Place, Settings, groups_of
from integration.job.harness import Job, Line, matching
from integration.job.predict import assert_follows_oracle, by_round

pytestmark = pytest.mark.timeout(240)


def assert_groups_are_the_schedules(
    lines: list[Line], settings: Settings, places: Sequence[Place]
) -> None:
    """Compare reported groups with the schedule's, given the place of each slot."""
    members = sorted({(line["slot"], line["rank"], line["own"]) for line in lines})
    layout = Layout.of([(key, places[slot]) for slot, _, key in members])
    for number, reports in by_round(lines).items():
        if all(line["kind"] == "train" for line in reports.values()):
            reported = {tuple(line["members"]) for line in reports.values()}
            assert reported == set(groups_of(layout, settings, number))


@pytest.mark.parametrize(
    ("workers", "sync"),
    [
        (8, {"mode": "grid", "group_size": 2}),
        (7, {"mode": "pool", "group_size": 3, "every": 3}),
        (5, {"mode": "allreduce", "every": 2}),
    ],
)
def test_values_follow_numpy_round_by_round(
    job: Job, workers: int, sync: dict[str, object]
) -> None:
    launcher = job.standalone(workers, "--seed", "7", samples=workers * 12, sync=sync)

    assert launcher.end() == 0

    lines = job.board.rounds()
    settings = Settings(str(sync["mode"]), int(str(sync.get("group_size", 4))), 7)
    assert_follows_oracle(lines)
    assert_groups_are_the_schedules(lines, settings, [Place()])
    assert {line["attempts"] for line in lines} == {0}
    assert len({str(line["bits"]) for line in job.board.select(matching(event="over"))}) == 1


@pytest.mark.parametrize("says", ["the pod", "the record"])
def test_cross_averages_in_racks_and_across_them(job: Job, says: str) -> None:
    """Neighbouring slots are in different racks, so the order of slots gives other groups."""
    sync, slots = {"mode": "cross", "group_size": 4}, range(4)
    places = [Place("zone", f"rack-{slot % 2}", f"node-{slot}") for slot in slots]
    paths = {place.node: f"{place.zone}/{place.rack}" for place in places}
    job.resize(4, least=4, **({"nodes": json.dumps(paths)} if says == "the record" else {}))
    for slot, place in enumerate(places):
        environment = {"DSSYNC_NODE_NAME": place.node}
        if says == "the pod":
            environment = {"DSSYNC_TOPOLOGY": f"{place.zone}/{place.rack}/{place.node}"}
        job.pod(slot, 2, "--seed", "7", pods="4", environment=environment, samples=96, sync=sync)

    assert [each.end() for each in job.launchers] == [0] * 4

    lines = job.board.rounds()
    assert_follows_oracle(lines)
    assert_groups_are_the_schedules(lines, Settings("cross", 4, 7), places)
    racks_of_groups = [{int(key[0]) % 2 for key in line["members"]} for line in lines]
    inside = [len(racks) == 1 for racks in racks_of_groups]
    assert any(inside)
    assert not all(inside)


def test_a_flush_is_the_exact_mean_for_awkward_numbers(job: Job) -> None:
    """Seven members in groups of at most three: no equal-weight rounds could give the mean."""
    sync = {"mode": "grid", "group_size": 3}
    launcher = job.standalone(7, samples=7 * 20, flush_at=3, sync=sync)

    assert launcher.end() == 0

    lines = job.board.rounds()
    assert_follows_oracle(lines)
    flushes = [line for line in lines if line["kind"] == "flush"]
    assert len({line["own"] for line in flushes}) == 7
    for number in {line["round"] for line in flushes}:
        assert len({str(line["values"]) for line in flushes if line["round"] == number}) == 1


def test_every_batch_is_trained_on(job: Job) -> None:
    launcher = job.standalone(4, samples=101, epochs=2, sync={"group_size": 2})

    assert launcher.end() == 0

    drawn = [line["batch"] for line in job.board.select(matching(event="step"))]
    assert sorted(drawn) == sorted([*range(101), *range(101)])
    assert "committed=202 total=202 repeated=0" in launcher.text
