"""How members and pods come, go, come back, and what the job does meanwhile."""

import pytest

from dssync.control import messages as m
from dssync.control.events import Connected, Received, Resized
from dssync.errors import ProtocolError
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


@pytest.fixture
def job() -> JobOnPaper:
    """Two members that train together."""
    job = JobOnPaper(desired=2)
    job.begin("0.0.a", "1.0.b")
    return job


def join(job: JobOnPaper, key: str) -> None:
    job.connect(int(key[0]))
    job.enters(key)
    job.loads(key)


def test_a_joiner_enters_at_the_next_unfrozen_round_with_weight_0(job: JobOnPaper) -> None:
    join(job, "2.0.c")
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
    join(job, "2.0.c")
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


# --- evidence of failure ----------------------------------------------------------------------


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
    join(job, "2.0.c")
    join(job, "3.0.d")
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


# --- the end ----------------------------------------------------------------------------------


def finish(job: JobOnPaper) -> int:
    """Consume all data; return the number of the final round."""
    job.says("0.0.a", m.Register((m.Track("", 2),), 1), m.Take(2, 0))
    job.apply("0.0.a", batches=(0, 1))
    job.apply("1.0.b")
    return job.assignment("0.0.a").round


def commit_final(job: JobOnPaper, number: int, *keys: str) -> None:
    attempt = job.assignment(keys[0], number).attempt
    for key in keys:
        job.says(key, m.Confirm(number, attempt, ()))
    job.apply(*keys, round=number)


def test_the_job_ends_with_a_strict_flush_when_all_data_are_committed(job: JobOnPaper) -> None:
    number = finish(job)
    final = job.assignment("0.0.a")
    assert (final.kind, final.strict) == ("final", True)

    commit_final(job, number, "0.0.a", "1.0.b")

    assert job.coordinator.completed
    assert [note.round for note in job.notes if note.kind == "completed"] == [number]
    assert job.of("1.0.b", m.Completed) == [m.Completed(0)]
    assert (0, m.JobCompleted()) in job.sent


def test_a_member_late_for_a_flush_is_benched_and_the_others_flush_without_it(
    job: JobOnPaper,
) -> None:
    number = finish(job)
    job.arrive("0.0.a", round=number)

    job.wait(5.2, 0, 1)
    job.says("0.0.a", m.Abandoned(number, 0))
    commit_final(job, number, "0.0.a")

    assert job.of("1.0.b", m.Bench) == [m.Bench("deadline")]
    assert not job.of("1.0.b", m.Skip)
    assert job.coordinator.completed


def test_a_flush_decided_but_not_applied_in_time_benches_too(job: JobOnPaper) -> None:
    number = finish(job)
    for key in ("0.0.a", "1.0.b"):
        job.says(key, m.Confirm(number, 0, ()))
    job.apply("0.0.a", round=number)
    assert not job.coordinator.completed

    job.wait(5.2, 0, 1)

    assert job.of("1.0.b", m.Bench)
    assert job.coordinator.completed


def test_a_joiner_during_the_final_flush_gets_the_final_state(job: JobOnPaper) -> None:
    number = finish(job)
    join(job, "2.0.c")
    assert not job.of("2.0.c", m.Start)

    commit_final(job, number, "0.0.a", "1.0.b")
    job.loads("2.0.c")

    assert len(job.of("2.0.c", m.Fetch)) == 2
    assert job.of("2.0.c", m.Completed)


def test_a_joiner_outlives_a_final_flush_that_lost_everybody(job: JobOnPaper) -> None:
    finish(job)
    join(job, "2.0.c")

    for key in ("0.0.a", "1.0.b"):
        job.hear(int(key[0]), m.Exited(key, -9, False))

    assert not job.coordinator.completed
    assert job.assignment("2.0.c").kind == "final"


def test_a_latecomer_that_finds_nobody_is_told_that_the_job_is_done(job: JobOnPaper) -> None:
    commit_final(job, finish(job), "0.0.a", "1.0.b")
    for key in ("0.0.a", "1.0.b"):
        job.hear(int(key[0]), m.Exited(key, 0, False))

    job.connect(2)
    job.enters("2.0.c")

    assert job.of("2.0.c", m.Completed)
    assert (2, m.JobCompleted()) in job.sent


def test_a_stop_ends_the_job_with_a_flush_before_its_data_do(job: JobOnPaper) -> None:
    job.says("0.0.a", m.Register((m.Track("", 100),), 1), m.AskStop())

    job.arrive("0.0.a")

    assert job.assignment("1.0.b", 1).kind == "final"


def test_a_flush_that_was_asked_for_is_strict_and_weights_the_groups(job: JobOnPaper) -> None:
    job.says("0.0.a", m.AskFlush())

    job.arrive("0.0.a")

    flush = job.assignment("1.0.b", 1)
    assert (flush.kind, flush.strict) == ("flush", True)
    assert flush.stages[0].communicator != job.assignment("1.0.b", 0).stages[0].communicator
    job.arrive("0.0.a", round=1)
    assert job.assignment("1.0.b", 2).kind == "train"


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
