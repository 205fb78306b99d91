"""How members and pods are lost, come back and leave, and what the job does meanwhile."""

import pytest

from dssync.control import messages as m
from dssync.control.events import Connected, Received, Resized
from dssync.errors import ProtocolError
from unit.control.job import MODEL, JobOnPaper

# --- evidence of failure ----------------------------------------------------------------------


def silent(key: str, seconds: float) -> m.Heartbeat:
    return m.Heartbeat((m.Progress(key, 0, seconds),))


def test_who_hangs_while_others_without_data_wait_for_it_is_put_out() -> None:
    job = JobOnPaper(desired=3)
    job.begin("0.0.a", "1.0.b", "2.0.c")
    size = m.Register((m.Track("", 3),), 1)
    for key in ("0.0.a", "1.0.b", "2.0.c"):
        job.says(key, size, m.Take(1, 0))
    job.hear(2, silent("2.0.c", 600.0))
    job.wait(1.0, 0, 1)
    nobody_waits = job.of("2.0.c", m.Bench)
    job.says("0.0.a", m.Take(1, 0))
    job.arrive("0.0.a", "1.0.b", idle=True)
    job.hear(2, silent("2.0.c", 599.0))
    job.wait(1.0, 0, 1)
    trains = job.of("2.0.c", m.Bench)

    job.hear(2, silent("2.0.c", 600.0))
    job.wait(1.0, 0, 1)

    assert nobody_waits == trains == []
    assert job.of("2.0.c", m.Bench) == [m.Bench("hang")]
    assert job.last("0.0.a", m.Leases) == m.Leases(0, (2,))
    assert m.Abandon(0, 0) in job.of("0.0.a", m.Abandon)


def test_who_is_held_up_by_one_that_hangs_is_not_put_out_with_it() -> None:
    job = JobOnPaper(desired=4, sync=m.SyncSettings("grid", 2, 1, "relaxed", 0))
    job.begin("0.0.a", "1.0.b", "2.0.c", "3.0.d")
    job.arrive("0.0.a", idle=True)  # of 0 and 1 in round 0
    job.arrive("2.0.c", "3.0.d", idle=True)
    job.apply("2.0.c", "3.0.d")
    job.arrive("2.0.c", "3.0.d", round=1, idle=True)

    for key in job.roster:
        job.hear(int(key[0]), silent(key, 600.0))
    job.wait(1.0)

    assert [key for key in job.roster if job.of(key, m.Bench)] == ["1.0.b"]


def test_a_connection_that_comes_back_in_time_costs_nothing(job: JobOnPaper) -> None:
    job.disconnect(1)
    job.wait(0.1, 0)
    job.connect(1)
    job.wait(1.0, 0, 1)

    assert not [note for note in job.notes if note.kind == "evict"]


def test_a_connection_that_stays_away_loses_the_pod(job: JobOnPaper) -> None:
    job.disconnect(1)

    job.wait(0.4, 0)

    assert [note.cause for note in job.notes if note.kind == "evict"] == ["eof"]
    assert job.of("0.0.a", m.Abandon)


def test_a_connection_that_ends_after_everybody_was_heard_loses_the_pod_as_soon(
    job: JobOnPaper,
) -> None:
    job.wait(0.3, 0, 1)
    job.disconnect(1)

    job.wait(0.4, 0)

    assert [note.cause for note in job.notes if note.kind == "evict"] == ["eof"]


def test_the_end_of_a_replaced_connection_is_no_news(job: JobOnPaper) -> None:
    job.connect(1, uid="another")
    evicted = [note for note in job.notes if note.kind == "evict"]

    job.disconnect(1)
    job.wait(1.0, 0, 1)

    assert [note.cause for note in evicted] == ["replaced"]
    assert 1 in job.coordinator.roster.pods


def test_a_silent_pod_loses_its_members_and_gets_them_back_when_it_speaks(
    job: JobOnPaper,
) -> None:
    job.wait(2.2, 0)
    assert job.of("1.0.b", m.Bench) == [m.Bench("lease")]

    job.enters("1.0.b")

    assert job.last("1.0.b", m.Fetch).donor == "0.0.a"


def test_a_benched_member_is_told_once_whatever_it_still_says(job: JobOnPaper) -> None:
    job.wait(2.2, 0)

    job.says("1.0.b", m.Arrive(0, 0, False), m.Applied(0, 0, ()), m.Take(1, 0))

    assert len(job.of("1.0.b", m.Bench)) == 1


def test_what_a_benched_member_commits_does_not_count(job: JobOnPaper) -> None:
    job.says("1.0.b", m.Register((m.Track("", 10),), 1), m.Take(2, 0))
    job.wait(2.2, 0)

    job.says("1.0.b", m.Applied(0, 0, (0, 1)))

    assert (job.coordinator.ledger.committed, job.coordinator.ledger.available) == (0, 10)


def test_three_missed_rounds_in_a_row_bench_a_member(job: JobOnPaper) -> None:
    for number in range(3):
        job.arrive("0.0.a", round=number)
        job.wait(5.2, 0, 1)
        job.says("0.0.a", m.Abandoned(number, 0))
        job.wait(1.2, 0, 1)
        job.apply("0.0.a", round=number)

    assert [skip.round for skip in job.of("1.0.b", m.Skip)] == [0, 1, 2]
    assert job.of("1.0.b", m.Bench) == [m.Bench("deadline")]


def test_an_applied_round_forgives_misses(job: JobOnPaper) -> None:
    job.coordinator.roster.peers["1.0.b"].misses = 2

    job.apply("1.0.b")

    assert job.coordinator.roster.peers["1.0.b"].misses == 0


def test_nobody_left_with_the_state_starts_the_job_anew_with_new_numbers() -> None:
    job = JobOnPaper()
    job.begin("0.0.a")
    job.says("0.0.a", m.Register((m.Track("", 10),), 1), m.Take(2, 0))
    job.apply("0.0.a", batches=(0, 1))
    view = job.assignment("0.0.a").view

    job.hear(0, m.Exited("0.0.a", -9, True))
    job.enters("0.0.b")

    assert "restarted_job" in [note.kind for note in job.notes]
    assert job.of("0.0.b", m.Start) == [m.Start(2, 0, True)]
    assert job.assignment("0.0.b").round == 2
    assert job.assignment("0.0.b").view > view
    assert job.coordinator.ledger.committed == 0


def test_a_member_that_comes_back_with_its_state_continues_the_job() -> None:
    job = JobOnPaper()
    job.begin("0.0.a")
    job.says("0.0.a", m.Register((m.Track("", 10),), 1), m.Take(2, 0))
    job.apply("0.0.a", batches=(0, 1))
    job.wait(2.2)

    job.enters("0.0.a", applied_round=0)

    assert job.of("0.0.a", m.Start)[-1] == m.Start(2, 0, True)
    assert job.coordinator.ledger.committed == 2


def test_a_state_of_a_term_that_nobody_else_knows_keeps_its_round_numbers() -> None:
    job = JobOnPaper(desired=2)
    job.connect(0)
    job.connect(1)

    job.enters("0.0.a")
    job.enters("1.0.b", applied_round=2)
    job.loads("0.0.a")

    assert job.of("1.0.b", m.Start) == [m.Start(3, 1, True)]


def test_if_only_joiners_are_left_their_values_count(job: JobOnPaper) -> None:
    job.joins("2.0.c")
    job.joins("3.0.d")
    job.apply("0.0.a", "1.0.b")

    for key in ("0.0.a", "1.0.b"):
        job.hear(int(key[0]), m.Exited(key, -9, False))
    for number in (1, 2, 3):
        for key in ("2.0.c", "3.0.d"):
            job.says(key, m.Abandoned(number, 0))
            job.apply(key, round=number)

    assert job.weight("2.0.c") == 0.5


# --- leaving ----------------------------------------------------------------------------------


def test_a_draining_pod_finishes_its_rounds_and_is_then_told_so(job: JobOnPaper) -> None:
    job.arrive("0.0.a")

    job.hear(1, m.Drain())
    assert job.of("1.0.b", m.LastRound) == [m.LastRound(1)]
    job.apply("0.0.a", "1.0.b")
    job.apply("0.0.a", "1.0.b", round=1)
    job.says("1.0.b", m.Leave("drain"))

    assert job.mates("0.0.a", 2) == ()
    assert (1, m.Drained()) in job.sent
    assert not job.of("0.0.a", m.Abandon)


def test_a_member_that_is_lost_while_it_drains_is_told_of(job: JobOnPaper) -> None:
    job.hear(1, m.Drain())

    job.hear(1, m.Exited("1.0.b", 1, False))

    found = [(note.kind, note.cause) for note in job.notes if note.member == "1.0.b"]
    assert found[-2:] == [("leave", "drain"), ("evict", "exit")]


def test_a_repeated_drain_is_no_news(job: JobOnPaper) -> None:
    job.hear(1, m.Drain())
    job.hear(1, m.Drain())

    assert job.of("1.0.b", m.LastRound) == [m.LastRound(0)]


def test_a_worker_of_a_draining_pod_is_not_let_in(job: JobOnPaper) -> None:
    job.connect(2)
    job.hear(2, m.Drain())

    job.enters("2.0.c")

    assert job.of("2.0.c", m.LastRound) == [m.LastRound(-1)]
    assert not job.of("2.0.c", m.Fetch)


def test_launchers_have_the_ledger_before_anything_of_it_is_leased() -> None:
    # Else they would take what is leased for batches of the earlier history that they know.
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.b")

    job.says("0.0.a", m.Register((m.Track("", 10),), 1))

    news = [(slot, each.ledger) for slot, each in job.sent if isinstance(each, m.LedgerNews)]
    assert news == [(slot, job.coordinator.ledger.state) for slot in (0, 1)]


def test_a_job_that_goes_on_from_a_checkpoint_counts_anew_everywhere_before_it_leases() -> None:
    # Else a new coordinator would take the copy in which most is done: that of the lost world.
    job = JobOnPaper()
    job.begin("0.0.a")
    job.says("0.0.a", m.Register((m.Track("", 10),), 1), m.Take(4, 0))
    job.apply("0.0.a", batches=(0, 1, 2, 3))
    job.says("0.0.a", m.Leave("nan"))
    saved = m.LedgerState(1, (m.TrackState("", 10, 2, ()),), 0)

    job.says("0.0.a", m.Enter(MODEL, job.sync, "a:1", resumes=True), m.Resumed(saved))

    (news,) = [each for _, each in job.sent if isinstance(each, m.LedgerNews)][1:]
    assert (news.ledger, news.restarts) == (saved, 1)
    assert len(job.of("0.0.a", m.Start)) == 2


def test_a_job_that_begins_from_a_checkpoint_says_so_to_launchers_before_it_leases() -> None:
    job = JobOnPaper()
    job.connect(0)
    saved = m.LedgerState(1, (m.TrackState("", 10, 2, ()),), 0)

    job.says("0.0.a", m.Enter(MODEL, job.sync, "a:1", resumes=True), m.Resumed(saved))

    assert [each.ledger for _, each in job.sent if isinstance(each, m.LedgerNews)] == [saved]


def test_who_starts_anew_after_a_resumed_member_was_lost_finds_nothing_done() -> None:
    job = JobOnPaper(desired=2)
    job.connect(0)
    job.connect(1)
    saved = m.LedgerState(1, (m.TrackState("", 10, 2, ()),), 0)
    for key in ("0.0.a", "1.0.b"):
        job.says(key, m.Enter(MODEL, job.sync, f"{key}:1", resumes=True))
    job.says("0.0.a", m.Resumed(saved))
    job.says("0.0.a", m.Leave("leave"))
    job.enters("0.0.a")

    job.says("1.0.b", m.Resumed(None))

    assert job.coordinator.ledger.committed == 0


def test_a_start_says_which_hello_it_answers() -> None:
    job = JobOnPaper(desired=1)
    job.connect(0)

    job.says("0.0.a", m.Enter(MODEL, job.sync, "a:1", generation=3))

    assert job.last("0.0.a", m.Start).generation == 3


def test_a_drained_member_gives_its_batches_back(job: JobOnPaper) -> None:
    job.says("0.0.a", m.Register((m.Track("", 4),), 1), m.Take(1, 0))
    job.says("1.0.b", m.Register((m.Track("", 4),), 1), m.Take(3, 0))
    job.says("0.0.a", m.Take(1, 0))
    job.hear(1, m.Drain())

    job.says("1.0.b", m.Leave("drain"))

    assert job.last("0.0.a", m.Leases) == m.Leases(0, (1,))


def test_below_the_minimum_no_round_is_frozen(job: JobOnPaper) -> None:
    job.coordinator.handle(Resized(2, 2), job.now)
    job.hear(1, m.Exited("1.0.b", -9, False))

    job.says("0.0.a", m.Abandoned(0, 0))
    job.apply("0.0.a")

    assert job.assignment("0.0.a").round == 0


# --- what no launcher says --------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        m.FromMember("0.0.a", "nonsense"),
        m.FromMember("0.0.a", '["Take","many",0]'),
        m.FromMember("1.0.b", '["Take",1,0]'),
        m.FromMember("nobody", '["Take",1,0]'),
        m.FromMember("0.x.a", '["Take",1,0]'),
        m.Exited("1.0.b", -9, False),
        m.Exited("", 0, False),
    ],
)
def test_a_malformed_message_is_refused_and_changes_nothing(
    job: JobOnPaper, message: m.FromLauncher
) -> None:
    with pytest.raises(ProtocolError):
        job.coordinator.handle(Received(0, message), job.now)

    assert set(job.coordinator.roster.peers) == {"0.0.a", "1.0.b"}


@pytest.mark.parametrize(
    "hello", [m.Hello(7, "uid", 0, ("", "", "")), m.Hello(7, "uid", 1, ("zone",))]
)
def test_a_hello_without_workers_or_place_is_refused(job: JobOnPaper, hello: m.Hello) -> None:
    with pytest.raises(ProtocolError, match="slot 7 announces"):
        job.coordinator.handle(Connected(hello), job.now)

    assert 7 not in job.coordinator.roster.pods
