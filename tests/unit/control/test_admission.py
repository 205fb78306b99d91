"""How members come in: the first world, joiners and their donors."""

import pytest

from dssync.control import messages as m
from unit.control.job import MODEL, SYNC, JobOnPaper

# --- the first world --------------------------------------------------------------------------


def test_the_first_world_starts_when_the_desired_pods_are_there_with_one_state() -> None:
    job = JobOnPaper(desired=2)
    job.connect(0)
    job.connect(1)
    job.enters("1.0.b")
    assert not job.told

    job.enters("0.0.a")

    assert job.of("1.0.b", m.Fetch) == [m.Fetch("0.0.a", "0.0.a:1")]
    assert not job.of("0.0.a", m.Start)
    job.loads("1.0.b")
    assert job.of("0.0.a", m.Start) == [m.Start(0, 0, True)]
    assert job.of("1.0.b", m.Start) == [m.Start(0, 1, True)]


def test_a_pod_counts_when_all_its_workers_said_hello() -> None:
    job = JobOnPaper(desired=1)
    job.connect(0, workers=2)

    job.enters("0.0.a")
    assert not job.told
    job.enters("0.1.b")

    assert job.of("0.1.b", m.Fetch)


def test_a_pod_does_not_wait_for_workers_that_ended_for_good() -> None:
    job = JobOnPaper(desired=1)
    job.connect(0, workers=2)
    job.enters("0.0.a")

    job.hear(0, m.Exited("0.1.b", 1, False))

    assert job.of("0.0.a", m.Start)


def test_after_the_join_window_the_minimum_is_enough() -> None:
    job = JobOnPaper(desired=3)
    job.connect(0)
    job.enters("0.0.a")

    job.wait(4.8, 0)
    assert not job.of("0.0.a", m.Start)
    job.wait(0.4, 0)

    assert job.of("0.0.a", m.Start)


def test_the_most_advanced_state_is_the_source() -> None:
    job = JobOnPaper(desired=2)
    job.connect(0)
    job.connect(1)
    job.enters("0.0.a", applied_round=3)

    job.enters("1.0.b", applied_round=5)

    assert job.of("0.0.a", m.Fetch) == [m.Fetch("1.0.b", "1.0.b:1")]


def test_if_the_source_dies_another_member_becomes_it() -> None:
    job = JobOnPaper(desired=3)
    for slot in range(3):
        job.connect(slot)
    job.enters("0.0.a", "1.0.b", "2.0.c")
    job.loads("2.0.c")

    job.hear(0, m.Exited("0.0.a", -9, True))
    job.loads("1.0.b")

    assert job.last("1.0.b", m.Fetch) == m.Fetch("2.0.c", "2.0.c:1")
    assert job.of("2.0.c", m.Start)


@pytest.mark.parametrize(
    ("model", "sync", "words"),
    [
        (("w float32 4",), SYNC, "tensor 'w float32 4' here is 'w float32 3' there"),
        (MODEL * 2, SYNC, "2 averaged tensors here and 1 in the other members"),
        (MODEL, m.SyncSettings("grid", 4, 1, "relaxed", 0), "use the same settings everywhere"),
        (MODEL, m.SyncSettings("grid", 1, 1, "relaxed", 0), "group size 1 is too small"),
        (MODEL, m.SyncSettings("ring", 4, 1, "relaxed", 0), "'ring' does not exist"),
    ],
)
def test_a_member_that_differs_is_refused_with_a_sentence(
    model: tuple[str, ...], sync: m.SyncSettings, words: str
) -> None:
    job = JobOnPaper(desired=2)
    job.connect(0)
    job.connect(1)
    job.enters("0.0.a")

    job.says("1.0.b", m.Enter(model, sync, "b:1"))

    refusal = job.last("1.0.b", m.Refuse)
    assert isinstance(refusal, m.Refuse)
    assert words in refusal.sentence


# --- joiners ----------------------------------------------------------------------------------


def test_a_joiner_enters_at_the_next_unfrozen_round_with_weight_0(job: JobOnPaper) -> None:
    job.joins("2.0.c")
    assert job.of("2.0.c", m.Start) == [m.Start(1, 2, False)]

    job.arrive("0.0.a")

    assert [job.weight(key, 1) for key in ("0.0.a", "1.0.b", "2.0.c")] == [0.5, 0.5, 0.0]


def test_the_workers_of_a_pod_join_together(job: JobOnPaper) -> None:
    job.connect(3, workers=2)
    job.enters("3.0.d", "3.1.d")

    job.loads("3.0.d")
    job.wait(0.2, 0, 1, 3)
    before = job.coordinator.world.view
    job.loads("3.1.d")

    assert "3.0.d" not in before.members
    after = job.coordinator.world.view
    assert {"3.0.d", "3.1.d"} <= set(after.members)
    assert job.last("3.0.d", m.Start).round == job.last("3.1.d", m.Start).round


def test_a_joiner_waits_a_moment_for_workers_of_its_pod_that_are_about_to_say_hello(
    job: JobOnPaper,
) -> None:
    job.connect(3, workers=2)
    job.enters("3.0.d")

    job.loads("3.0.d")
    before = job.coordinator.world.view
    job.wait(0.15, 0, 1, 3)

    assert "3.0.d" not in before.members
    assert "3.0.d" in job.coordinator.world.view.members


def test_a_joiner_does_not_wait_long_for_the_others_of_its_pod(job: JobOnPaper) -> None:
    job.connect(3, workers=2)
    job.enters("3.0.d", "3.1.d")
    job.loads("3.0.d")

    job.wait(1.2, 0, 1, 3)

    assert "3.0.d" in job.coordinator.world.view.members


def test_a_joiner_waits_for_no_worker_of_its_pod_that_is_gone(job: JobOnPaper) -> None:
    job.connect(3, workers=2)
    job.enters("3.0.d", "3.1.d")
    job.loads("3.0.d")

    job.hear(3, m.Exited("3.1.d", -9, False))

    assert "3.0.d" in job.coordinator.world.view.members


def test_a_joiner_has_weight_once_it_has_applied_a_sum(job: JobOnPaper) -> None:
    job.joins("2.0.c")
    job.apply("0.0.a", "1.0.b")
    job.apply("2.0.c", round=1)

    job.apply("0.0.a", round=2)

    assert job.weight("2.0.c", 3) == 1 / 3


def test_donors_take_turns(job: JobOnPaper) -> None:
    for slot in (2, 3, 4, 5):
        job.connect(slot)
        job.enters(f"{slot}.0.x")

    donors = [job.last(f"{slot}.0.x", m.Fetch).donor for slot in (2, 3, 4, 5)]

    assert sorted(donors) == ["0.0.a", "0.0.a", "1.0.b", "1.0.b"]


def test_who_could_not_load_in_the_first_world_is_sent_again_while_others_load() -> None:
    job = JobOnPaper(desired=3)
    for slot in range(3):
        job.connect(slot)
    job.enters("0.0.a", "1.0.b", "2.0.c")

    job.says("2.0.c", m.FetchFailed("0.0.a", "lost"))

    assert len(job.of("2.0.c", m.Fetch)) == 2
    job.loads("1.0.b", "2.0.c")
    assert job.coordinator.world is not None


def test_a_joiner_whose_donor_dies_is_sent_to_another(job: JobOnPaper) -> None:
    job.connect(2)
    job.enters("2.0.c")
    donor = job.last("2.0.c", m.Fetch).donor

    job.hear(int(donor[0]), m.Exited(donor, -9, True))

    assert job.last("2.0.c", m.Fetch).donor not in (donor, "2.0.c")
    job.says("2.0.c", m.Loaded(donor))
    assert not job.of("2.0.c", m.Start)


def test_a_joiner_that_cannot_reach_its_donor_is_sent_to_another(job: JobOnPaper) -> None:
    job.connect(2)
    job.enters("2.0.c")
    first = job.last("2.0.c", m.Fetch).donor

    job.says("2.0.c", m.FetchFailed(first, "refused"))

    assert job.last("2.0.c", m.Fetch).donor != first


def test_the_only_donor_is_tried_again() -> None:
    job = JobOnPaper()
    job.begin("0.0.a")
    job.connect(1)
    job.enters("1.0.b")

    job.says("1.0.b", m.FetchFailed("0.0.a", "refused"))

    assert len(job.of("1.0.b", m.Fetch)) == 2


def test_a_member_that_enters_again_starts_anew(job: JobOnPaper) -> None:
    job.says("0.0.a", m.Register((m.Track("", 10),), 1), m.Take(2, 0))

    job.enters("0.0.a")

    assert job.last("0.0.a", m.Fetch).donor == "1.0.b"
    assert job.coordinator.ledger.available == 10


def test_members_of_the_first_world_wait_for_nobody_once_it_stands() -> None:
    job = JobOnPaper(desired=1)
    job.connect(0, workers=3)
    job.enters("0.0.a", "0.1.b", "0.2.c")
    job.loads("0.1.b")

    job.hear(0, m.Exited("0.2.c", -9, True))

    assert job.of("0.0.a", m.Start) == [m.Start(0, 0, True)]
    assert job.of("0.1.b", m.Start) == [m.Start(0, 1, True)]
