"""How the job ends: flushes, the end of the data, who comes late for it."""

from dssync.control import messages as m
from dssync.control.events import Recorded, Send
from unit.control.job import JobOnPaper


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


def test_a_flush_without_the_first_of_the_view_is_saved_by_another(job: JobOnPaper) -> None:
    """Else nobody would save the last state of the job."""
    number = finish(job)
    before = job.assignment("1.0.b").first
    job.hear(0, m.Exited("0.0.a", -9, False))
    job.says("1.0.b", m.Abandoned(number, 0))

    commit_final(job, number, "1.0.b")

    again = job.assignment("1.0.b", number)
    assert (before, again.attempt, again.first) == ("0.0.a", 1, "1.0.b")
    assert [copy.round for copy in job.of("1.0.b", m.LedgerCopy)] == [number]


def test_nobody_is_told_of_the_end_before_the_record_says_so(job: JobOnPaper) -> None:
    """Who took over from a coordinator that tells of an end nobody knows would end it again."""
    job.records = False
    number = finish(job)
    job.joins("2.0.c")
    commit_final(job, number, "0.0.a", "1.0.b")
    job.loads("2.0.c")
    job.connect(3)
    job.wait(1.0, 0, 1, 2, 3)
    everybody = ("0.0.a", "1.0.b", "2.0.c")

    assert job.coordinator.completed
    assert not [key for key in everybody if job.of(key, m.Completed)]
    assert m.JobCompleted() not in [message for _, message in job.sent]

    job.takes(Recorded())

    assert [job.of(key, m.Completed) for key in everybody] == [[m.Completed(0)]] * 3
    assert {slot for slot, said in job.sent if said == m.JobCompleted()} == {0, 1, 2, 3}


def test_a_launcher_is_told_of_the_end_after_its_members(job: JobOnPaper) -> None:
    """It takes over from nobody then, so nobody else would tell them."""
    heard: list[object] = []
    job.records = False
    commit_final(job, finish(job), "0.0.a", "1.0.b")

    for effect in job.coordinator.handle(Recorded(), job.now):
        if isinstance(effect, Send) and effect.slot == 1:
            heard.append(type(effect.message))

    assert heard == [m.ToMember, m.JobCompleted]


def test_a_latecomer_waits_for_the_record_as_well(job: JobOnPaper) -> None:
    job.records = False
    commit_final(job, finish(job), "0.0.a", "1.0.b")
    for key in ("0.0.a", "1.0.b"):
        job.hear(int(key[0]), m.Exited(key, -9, False))
    job.connect(2)
    job.enters("2.0.c")
    assert not job.of("2.0.c", m.Completed)

    job.takes(Recorded())

    assert job.of("2.0.c", m.Completed)


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
    job.joins("2.0.c")
    assert not job.of("2.0.c", m.Start)

    commit_final(job, number, "0.0.a", "1.0.b")
    job.loads("2.0.c")

    assert len(job.of("2.0.c", m.Fetch)) == 2
    assert job.of("2.0.c", m.Completed)


def test_a_joiner_outlives_a_final_flush_that_lost_everybody(job: JobOnPaper) -> None:
    finish(job)
    job.joins("2.0.c")

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


def test_who_is_lost_before_it_is_told_of_the_end_keeps_the_last_values(job: JobOnPaper) -> None:
    commit_final(job, finish(job), "0.0.a", "1.0.b")

    job.disconnect(1)
    job.wait(1.0, 0)

    assert job.coordinator.job.put_out == {}
