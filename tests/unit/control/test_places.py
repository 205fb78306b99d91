"""Where members run: what launchers announce, completed by the record's paths of their nodes."""

import pytest

from dssync.control import messages as m
from dssync.control.events import Placed, Resized
from dssync.control.places import located
from dssync.control.record import Record
from dssync.schedule import Place
from unit.control.job import JobOnPaper

A, B, C, D = "0.0.a", "1.0.b", "2.0.c", "3.0.d"
PAIRS = m.SyncSettings("grid", 2, 1, "relaxed", 0)
RACKS = {"node0": "east/r1", "node1": "east/r2", "node2": "east/r1", "node3": "east/r2"}


@pytest.mark.parametrize(
    ("path", "zone", "rack"),
    [
        ("east/r1", "east", "r1"),
        ("r1", "", "r1"),
        ("eu/east/r1", "eu/east", "r1"),
        ("-/r1", "", "r1"),
        ("east/-", "east", ""),
    ],
)
def test_the_innermost_level_of_a_path_is_the_rack(path: str, zone: str, rack: str) -> None:
    found = located(Place("", "", "n"), {"n": path})

    assert found == Place(zone, rack, "n")


def test_what_a_launcher_says_of_its_rack_wins() -> None:
    own = Place("west", "", "n")

    assert located(own, {"n": "east/r1"}) == own


def test_a_record_that_is_no_object_places_nobody() -> None:
    assert Record(values={"dssync.io/nodes": "[1]"}).paths == {}
    assert Record(values={"dssync.io/nodes": "{"}).paths == {}
    assert Record(values={"dssync.io/nodes": '{"n": "a/b"}'}).paths == {"n": "a/b"}


def test_the_first_world_is_laid_out_by_the_paths_of_nodes() -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.takes(Placed(RACKS))

    job.begin(A, B, C, D)

    assert job.mates(A) == (A, C)
    assert job.mates(B) == (B, D)


def test_paths_that_come_late_lay_the_view_out_anew_once() -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.begin(A, B, C, D)
    before = job.coordinator.world.view.sequence
    assert job.mates(A) == (A, B)

    job.takes(Placed(RACKS))
    job.takes(Placed(dict(RACKS)))

    world = job.coordinator.world
    assert world.view.sequence == before + 1
    assert [place.rack for place in world.view.places.values()] == ["r1", "r1", "r2", "r2"]
    first = world.rounds.next_round
    for number in range(first + 2):
        job.apply(A, B, C, D, round=number)
    # Rounds that were frozen before keep their groups.
    assert job.mates(A, 0) == (A, B)
    later = [job.mates(A, number) for number in range(first, world.rounds.next_round)]
    assert (A, C) in later


def test_a_joiner_sits_in_its_rack() -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.takes(Placed({**RACKS, "node4": "east/r1"}))
    job.begin(A, B, C, D)
    job.takes(Resized(5, 1))

    job.connect(4)
    job.enters("4.0.e")
    job.loads("4.0.e")

    assert job.coordinator.world.view.places["4.0.e"].rack == "r1"
