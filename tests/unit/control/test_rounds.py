"""Groups in their rounds: freeze, loss, retry, deadline, commit."""

import pytest

from dssync.control import messages as m
from unit.control.job import SYNC, JobOnPaper

STRICT = m.SyncSettings("allreduce", 4, 1, "strict", 0)
PAIRS = m.SyncSettings("grid", 2, 1, "relaxed", 0)


@pytest.fixture
def job() -> JobOnPaper:
    """Three members in one group, round 0 frozen."""
    job = JobOnPaper(desired=3)
    job.begin("0.0.a", "1.0.b", "2.0.c")
    return job


def test_the_first_arrival_in_a_round_freezes_the_next(job: JobOnPaper) -> None:
    assert job.assignment("0.0.a").round == 0

    job.arrive("1.0.b")

    assert [job.assignment(key).round for key in ("0.0.a", "1.0.b", "2.0.c")] == [1, 1, 1]


@pytest.mark.parametrize(("seconds_per_round", "latest"), [(0.05, 3), (0.15, 2)])
def test_rounds_that_follow_each_other_fast_are_frozen_two_ahead(
    seconds_per_round: float, latest: int
) -> None:
    job = JobOnPaper(desired=2, ahead_seconds=0.1)
    job.begin("0.0.a", "1.0.b")
    job.apply("0.0.a", "1.0.b")
    job.now += seconds_per_round

    job.apply("0.0.a", round=1)

    assert job.assignment("1.0.b").round == latest


def test_a_member_that_was_too_quick_to_announce_its_operation_arrives_by_applying(
    job: JobOnPaper,
) -> None:
    job.apply("1.0.b")

    assert job.assignment("0.0.a").round == 1


def test_a_claim_to_be_far_ahead_freezes_one_round_at_most(job: JobOnPaper) -> None:
    job.says("1.0.b", m.Arrive(10**9, 0, False))

    assert job.assignment("0.0.a").round == 1


def test_weights_of_a_round_are_equal(job: JobOnPaper) -> None:
    assert [job.weight(key) for key in ("0.0.a", "1.0.b", "2.0.c")] == [1 / 3] * 3


def test_a_loss_makes_the_others_abandon_and_try_again_without_it(job: JobOnPaper) -> None:
    job.arrive("0.0.a", "1.0.b", "2.0.c")

    job.hear(2, m.Exited("2.0.c", -9, True))
    assert job.last("0.0.a", m.Abandon) == m.Abandon(1, 0)
    assert m.Abandon(0, 0) in job.of("0.0.a", m.Abandon)
    job.says("0.0.a", m.Abandoned(0, 0))
    assert job.assignment("0.0.a", 0).attempt == 0
    job.says("1.0.b", m.Abandoned(0, 0))

    assert job.assignment("0.0.a", 0).attempt == 1
    assert job.mates("0.0.a") == ("0.0.a", "1.0.b")
    assert job.assignment("0.0.a", 0).cause == "exit"


def test_who_has_applied_is_not_in_the_retry(job: JobOnPaper) -> None:
    job.apply("0.0.a")
    job.hear(2, m.Exited("2.0.c", -9, True))

    job.says("1.0.b", m.Abandoned(0, 0))

    assert job.assignment("0.0.a", 0).attempt == 0
    assert job.assignment("1.0.b", 0).attempt == 1
    assert job.mates("1.0.b") == ()


def test_a_retry_uses_another_communicator_and_the_old_one_is_retired(job: JobOnPaper) -> None:
    broken = job.assignment("0.0.a", 0).stages[0].communicator
    job.hear(2, m.Exited("2.0.c", -9, True))
    job.says("0.0.a", m.Abandoned(0, 0))
    job.says("1.0.b", m.Abandoned(0, 0))

    assert job.assignment("0.0.a", 0).stages[0].communicator != broken
    assert broken in job.assignment("0.0.a", 0).retire


def test_a_failed_operation_probes_the_group_and_evicts_nobody(job: JobOnPaper) -> None:
    job.says("1.0.b", m.Failed(0, 0, "connection reset"))

    for key in ("0.0.a", "1.0.b", "2.0.c"):
        job.says(key, m.Abandoned(0, 0))

    assert job.mates("0.0.a") == ("0.0.a", "1.0.b", "2.0.c")
    assert job.assignment("0.0.a", 0).attempt == 1
    assert not [note for note in job.notes if note.kind == "evict"]


def test_a_communicator_shared_with_a_later_round_is_given_up_in_both(job: JobOnPaper) -> None:
    job.arrive("0.0.a")
    assert job.assignment("0.0.a", 0).stages == job.assignment("0.0.a", 1).stages

    job.says("1.0.b", m.Failed(0, 0, "connection reset"))

    assert job.of("2.0.c", m.Abandon) == [m.Abandon(0, 0), m.Abandon(1, 0)]


def test_a_loss_gives_up_nothing_of_other_groups() -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.begin("0.0.a", "1.0.b", "2.0.c", "3.0.d")
    victim, mate = job.mates("0.0.a")
    others = [key for key in ("0.0.a", "1.0.b", "2.0.c", "3.0.d") if key not in (victim, mate)]

    job.hear(int(victim[0]), m.Exited(victim, -9, True))

    assert job.of(mate, m.Abandon)
    assert not any(job.of(key, m.Abandon) for key in others)


def test_a_straggler_is_skipped_after_the_deadline_and_not_before(job: JobOnPaper) -> None:
    job.arrive("0.0.a", "1.0.b")

    job.wait(4.8, 0, 1, 2)
    assert not job.of("2.0.c", m.Skip)
    job.wait(0.4, 0, 1, 2)

    assert job.of("2.0.c", m.Skip) == [m.Skip(0, 1)]
    assert job.of("0.0.a", m.Abandon)


def test_idle_members_do_not_hurry_a_mate_that_trains(job: JobOnPaper) -> None:
    job.arrive("0.0.a", "1.0.b", idle=True)

    job.wait(60.0, 0, 1, 2)

    assert not job.of("2.0.c", m.Skip)


def test_once_all_have_arrived_even_idle_members_wait_no_longer_than_the_deadline(
    job: JobOnPaper,
) -> None:
    for key in ("0.0.a", "1.0.b", "2.0.c"):
        job.says(key, m.Arrive(0, 0, True))

    job.wait(5.2, 0, 1, 2)

    assert m.Abandon(0, 0) in job.of("0.0.a", m.Abandon)


@pytest.mark.parametrize("strict", [False, True])
def test_once_a_mate_has_a_result_who_hangs_in_its_operation_is_not_waited_for_long(
    strict: bool,
) -> None:
    job = JobOnPaper(desired=2, sync=STRICT if strict else SYNC)
    job.begin("0.0.a", "1.0.b")
    job.arrive("1.0.b", idle=True)
    job.says("0.0.a", m.Confirm(0, 0, ()) if strict else m.Applied(0, 0, ()))

    job.wait(5.2, 0, 1)

    assert m.Abandon(0, 0) in job.of("1.0.b", m.Abandon)


def test_members_that_build_are_not_late_and_the_one_they_wait_for_is(job: JobOnPaper) -> None:
    job.says("0.0.a", m.Arrive(0, 0, False, building=True))
    job.says("1.0.b", m.Arrive(0, 0, False, building=True))

    job.wait(9.8, 0, 1, 2)
    assert not job.of("0.0.a", m.Abandon)
    job.wait(0.4, 0, 1, 2)

    assert job.of("2.0.c", m.Skip)
    assert not job.of("0.0.a", m.Skip)


def test_who_does_not_answer_an_abandon_is_skipped(job: JobOnPaper) -> None:
    job.arrive("0.0.a", "1.0.b", "2.0.c")
    job.says("0.0.a", m.Failed(0, 0, "timeout"))
    job.says("0.0.a", m.Abandoned(0, 0))
    job.says("1.0.b", m.Abandoned(0, 0))

    job.wait(1.2, 0, 1, 2)

    assert job.of("2.0.c", m.Skip) == [m.Skip(0, 1), m.Skip(1, 2)]
    assert job.mates("0.0.a") == ("0.0.a", "1.0.b")


def test_a_member_held_up_by_a_lower_round_is_not_late_in_a_higher_one() -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.begin("0.0.a", "1.0.b", "2.0.c", "3.0.d")
    slow, held = job.mates("0.0.a")
    other, partner = job.mates(next(k for k in job.roster if k not in (slow, held)))
    job.says(held, m.Arrive(0, 0, False))
    job.wait(1.0, 0, 1, 2, 3)
    job.apply(other, partner)
    for key in (other, partner):
        job.says(key, m.Arrive(1, 0, False))

    job.wait(4.8, 0, 1, 2, 3)

    assert job.of(slow, m.Skip)
    assert not job.of(held, m.Skip)


@pytest.mark.parametrize("idle", [False, True])
def test_who_was_held_up_has_the_whole_limit_once_it_is_free(idle: bool) -> None:
    job = JobOnPaper(desired=4, sync=PAIRS)
    job.begin("0.0.a", "1.0.b", "2.0.c", "3.0.d")
    slow, held = job.mates("0.0.a")
    others = [key for key in job.roster if key not in (slow, held)]
    job.says(held, m.Arrive(0, 0, idle))
    job.apply(*others)
    for key in others:
        job.says(key, m.Arrive(1, 0, False))
    job.wait(4.0, 0, 1, 2, 3)
    job.apply(slow, held)

    job.wait(4.8, 0, 1, 2, 3)
    assert not job.of(held, m.Skip)
    job.wait(0.4, 0, 1, 2, 3)
    assert job.of(held, m.Skip)


def test_strict_a_member_that_confirms_has_arrived() -> None:
    job = JobOnPaper(desired=3, sync=STRICT)
    job.begin("0.0.a", "1.0.b", "2.0.c")
    job.arrive("0.0.a")
    job.says("1.0.b", m.Confirm(0, 0, ()))

    job.wait(5.2, 0, 1, 2)

    assert job.of("2.0.c", m.Skip)
    assert not job.of("1.0.b", m.Skip)


def test_rounds_missed_together_are_one_miss(job: JobOnPaper) -> None:
    for number in range(2):
        job.arrive("0.0.a", round=number)
    job.says("0.0.a", m.Failed(0, 0, "timeout"))
    for key in ("0.0.a", "1.0.b"):
        for number in range(3):
            job.says(key, m.Abandoned(number, 0))

    job.wait(1.2, 0, 1, 2)

    assert len(job.of("2.0.c", m.Skip)) == 3
    assert not job.of("2.0.c", m.Bench)


def test_strict_commits_when_the_last_member_has_confirmed() -> None:
    job = JobOnPaper(desired=2, sync=STRICT)
    job.begin("0.0.a", "1.0.b")

    job.says("0.0.a", m.Confirm(0, 0, ()))
    assert not job.of("0.0.a", m.Commit)
    job.says("1.0.b", m.Confirm(0, 0, ()))

    assert job.of("0.0.a", m.Commit) == job.of("1.0.b", m.Commit) == [m.Commit(0, 0, ())]


def test_strict_the_decision_commits_the_batches_of_the_whole_group() -> None:
    job = JobOnPaper(desired=2, sync=STRICT)
    job.begin("0.0.a", "1.0.b")
    for key in ("0.0.a", "1.0.b"):
        job.says(key, m.Register((m.Track("", 4),), 1), m.Take(2, 0))
    job.says("0.0.a", m.Confirm(0, 0, (0,)))
    job.says("1.0.b", m.Confirm(0, 0, (2, 3)))

    job.hear(1, m.Exited("1.0.b", -9, True))

    assert job.last("0.0.a", m.Commit) == m.Commit(0, 0, (0, 2, 3))
    assert (job.coordinator.ledger.committed, job.coordinator.ledger.available) == (3, 0)


def test_launchers_get_the_ledger_when_it_has_changed() -> None:
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.b")
    job.says("0.0.a", m.Register((m.Track("", 4),), 1), m.Take(2, 0))
    job.apply("0.0.a", batches=(1,))

    job.wait(2.0, 0, 1)

    news = m.LedgerNews(m.LedgerState(1, (m.TrackState("", 4, 2, (0,)),), 0), number=2)
    sent = [(slot, each) for slot, each in job.sent if isinstance(each, m.LedgerNews)]
    assert sent[2:] == [(0, news), (1, news)], "the first pair is that of the registration"


def test_strict_a_loss_before_the_last_confirmation_undoes_the_attempt() -> None:
    job = JobOnPaper(desired=3, sync=STRICT)
    job.begin("0.0.a", "1.0.b", "2.0.c")
    job.says("0.0.a", m.Confirm(0, 0, ()))
    job.says("1.0.b", m.Confirm(0, 0, ()))

    job.hear(2, m.Exited("2.0.c", -9, True))

    assert job.of("0.0.a", m.Abandon) == [m.Abandon(0, 0)]
    assert not job.of("0.0.a", m.Commit)


def test_strict_a_loss_after_the_decision_changes_nothing() -> None:
    job = JobOnPaper(desired=2, sync=STRICT)
    job.begin("0.0.a", "1.0.b")
    job.says("0.0.a", m.Confirm(0, 0, ()))
    job.says("1.0.b", m.Confirm(0, 0, ()))

    job.hear(1, m.Exited("1.0.b", -9, True))
    job.apply("0.0.a")

    assert not job.of("0.0.a", m.Abandon)
    assert job.notes[-1].kind == "round"


def test_no_round_is_frozen_beyond_a_period_and_two_while_a_group_waits() -> None:
    job = JobOnPaper(desired=2, sync=SYNC)
    job.begin("0.0.a", "1.0.b")

    for number in range(10):
        job.says("0.0.a", m.Arrive(number, 0, False))

    assert job.assignment("1.0.b").round == 2


def test_rendezvous_data_goes_to_the_other_members_of_a_communicator(job: JobOnPaper) -> None:
    communicator = job.assignment("0.0.a").stages[0].communicator
    blob = m.Blob(communicator, "0", "aGVsbG8=")

    job.says("0.0.a", blob)

    assert job.of("1.0.b", m.Blob) == job.of("2.0.c", m.Blob) == [blob]
    assert not job.of("0.0.a", m.Blob)


def test_rendezvous_data_of_a_broken_communicator_goes_nowhere(job: JobOnPaper) -> None:
    communicator = job.assignment("0.0.a").stages[0].communicator
    job.says("1.0.b", m.Failed(0, 0, "reset"))

    job.says("0.0.a", m.Blob(communicator, "0", ""))

    assert not job.of("1.0.b", m.Blob)
