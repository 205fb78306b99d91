"""When a job is over, suspended or stalled, and what remains of it, case by case."""

from dataclasses import replace
from typing import Any

import pytest

from dssync_operator.job import format_time
from dssync_operator.plan import Seen, plan
from dssync_operator.record import Progress, View
from dssync_operator.report import report
from dssync_operator.status import render_status
from ground.models import START, make_end, make_pod, make_record, make_spec_job
from ground.world import CrashError, World


def test_suspended_is_true_only_when_no_pod_is_left() -> None:
    world = World({"replicas": 2})
    world.look()
    for name in list(world.pods):
        world.run(name)
    world.edit(suspend=True)

    world.look()
    assert world.parsed().conditions["Suspended"].reason == "Draining"
    assert not world.parsed().is_true("Suspended")
    for name in list(world.pods):
        world.vanish(name)
    world.look()
    assert world.parsed().is_true("Suspended")


def test_resumed_job_starts_its_clocks_anew_and_old_view_is_no_world() -> None:
    world = World({"replicas": 1, "startupDeadlineSeconds": 100})
    world.look()
    world.view = View(1, 7, 1, 1)
    world.look()
    assert world.parsed().clock.world_formed == world.now
    world.edit(suspend=True)
    world.look()
    world.pods.clear()
    world.now += 1000
    world.look()
    world.edit(suspend=False)

    world.look()

    assert world.parsed().clock.started == world.now
    assert world.parsed().clock.world_formed is None
    world.now += 100
    world.look()
    assert world.parsed().conditions["Failed"].reason == "StartupDeadlineExceeded"


def test_world_that_formed_before_anything_was_written_is_seen_by_the_next_operator() -> None:
    world = World({"replicas": 1, "startupDeadlineSeconds": 100})
    with pytest.raises(CrashError):
        world.look(effects_before_crash=3)  # after the Lease, before the status
    world.run("demo-w0-0")
    world.view = View(1, 1, 1, 1)

    world.look()

    assert world.parsed().clock.world_formed == world.now


def test_active_deadline_fails_the_job() -> None:
    world = World({"replicas": 1, "activeDeadlineSeconds": 500})
    world.look()
    world.now += 500

    world.look()

    assert world.parsed().conditions["Failed"].reason == "DeadlineExceeded"


def test_too_few_pods_for_too_long_fail_the_job() -> None:
    world = World({"replicas": 2, "elastic": {"minReplicas": 2, "belowMinTimeoutSeconds": 30}})
    world.look()
    for name in list(world.pods):
        world.run(name)
    world.view = View(1, 1, 2, 2)
    world.look()
    world.vanish("demo-w1-0")
    world.look()
    assert world.parsed().conditions["Running"].reason == "BelowMinReplicas"
    world.now += 30

    world.look()

    assert world.parsed().conditions["Failed"].reason == "BelowMinTimeout"


def test_drained_pods_never_complete_a_job() -> None:
    world = World({"replicas": 2})
    world.look()
    for slot in range(2):
        world.end(f"demo-w{slot}-0", 0, "Drained")

    world.look()

    assert not world.parsed().finished
    assert world.parsed().tally.planned == 2
    assert world.parsed().tally.total == 0


def test_completion_in_the_record_completes_whatever_the_pods_say() -> None:
    pods = (make_pod(0, ended=make_end(1)), make_pod(1))
    job = make_spec_job(replicas=2, failurePolicy={"backoffLimit": 0})

    decided = plan(Seen(job, pods, make_record(completed=True)), START + 100)

    assert decided.status.is_true("Complete")
    assert not decided.status.is_true("Failed")
    assert decided.status.tally.total == 0
    assert decided.delete == ()  # the final state is still handed on
    later = plan(
        Seen(make_spec_job({}, replicas=2), pods, make_record(completed=True)), START + 100
    )
    assert later.wake_at == START + 130


def test_pod_that_a_lost_node_keeps_from_ending_holds_no_completion_up() -> None:
    done = {"ended": make_end(0, "Done"), "phase": "Succeeded"}
    zombie = make_pod(1, deleting=True, doomed_since=START + 60)
    pods = (make_pod(0, **done), zombie, make_pod(1, 1, **done))
    job = make_spec_job(replicas=2, rendezvous={"mode": "Static"})

    decided = plan(Seen(job, pods, None), START + 100)

    assert decided.status.is_true("Complete")


def test_any_is_satisfied_by_the_first_done() -> None:
    world = World({"replicas": 3, "successPolicy": "Any"})
    world.look()
    world.end("demo-w1-0", 0, "Done")

    decided = world.look()

    assert world.parsed().is_true("Complete")
    assert {pod.slot for pod in decided.delete} == {0, 2}


def test_coordinator_policy_waits_for_the_word_of_the_coordinator() -> None:
    world = World({"replicas": 3, "successPolicy": "Coordinator"})
    world.look()
    world.end("demo-w0-0", 0, "Done")
    world.look()
    before = world.parsed().is_true("Complete")
    world.completed = True

    world.look()

    assert not before
    assert world.parsed().is_true("Complete")


def test_coordinator_policy_listens_to_slot_0_where_the_rendezvous_is_static() -> None:
    world = World({"replicas": 3, "successPolicy": "Coordinator", "rendezvous": {"mode": "Static"}})
    world.look()
    world.end("demo-w2-0", 0, "Done")
    world.look()
    before = world.parsed().is_true("Complete")

    world.end("demo-w0-0", 0, "Done")
    world.look()

    assert not before
    assert world.parsed().is_true("Complete")


def look_at_step(
    step: int, status: dict[str, Any], at: float, **spec: Any
) -> tuple[dict[str, Any], float | None]:
    """One look at a job of one running pod whose launchers tell of a step."""
    job = make_spec_job(status, health={"hangTimeoutSeconds": 100}, **spec)
    view = View(1, 2 if step else 1, 1, 1)  # the first one belongs to an earlier start
    record = replace(make_record(view), progress=Progress(step, None))
    decided = plan(Seen(job, (make_pod(),), record), at)
    told = report(job, decided.status, (make_pod(),), record, None, at)
    return render_status(told), decided.wake_at


def running(status: dict[str, Any]) -> tuple[str, str]:
    (found,) = [c for c in status["conditions"] if c["type"] == "Running"]
    return found["status"], found["reason"]


def test_step_that_stays_for_too_long_is_no_progress_until_it_moves() -> None:
    status, _ = look_at_step(0, {}, START)
    status, _ = look_at_step(5, status, START + 10)
    at_first = running(status)
    status, wake_at = look_at_step(5, status, START + 60)
    status, _ = look_at_step(5, status, START + 110)
    stalled = running(status), status["state"]
    status, _ = look_at_step(6, status, START + 120)

    assert at_first == ("True", "WorldFormed")
    assert wake_at == START + 110
    assert stalled == (("False", "NoProgress"), "Degraded")
    assert running(status) == ("True", "WorldFormed")
    assert status["progress"]["lastUpdateTime"] == format_time(START + 120)


def test_time_that_a_job_is_suspended_is_no_stall() -> None:
    status, _ = look_at_step(0, {}, START)
    status, _ = look_at_step(5, status, START + 10)
    status, _ = look_at_step(5, status, START + 20, suspend=True)
    job = make_spec_job(status, health={"hangTimeoutSeconds": 100})
    old = replace(make_record(View(1, 2, 1, 1)), progress=Progress(5, None))
    resumed = plan(Seen(job, (), old), START + 900)
    status = render_status(report(job, resumed.status, (make_pod(),), old, None, START + 900))
    job = make_spec_job(status, health={"hangTimeoutSeconds": 100})
    new = replace(make_record(View(2, 1, 1, 1)), progress=Progress(5, None))

    formed = plan(Seen(job, (make_pod(),), new), START + 950)

    told = render_status(report(job, formed.status, (make_pod(),), new, None, START + 950))
    assert running(told) == ("True", "WorldFormed")


def test_done_slot_is_remembered_when_its_pod_is_deleted_by_hand() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w0-0", 0, "Done")
    world.look()
    world.vanish("demo-w0-0")

    assert world.look().create == ()
    world.end("demo-w1-0", 0, "Done")
    world.look()
    assert world.parsed().is_true("Complete")


def test_finished_job_makes_no_pods_whatever_disappears() -> None:
    world = World({"replicas": 1, "cleanPodPolicy": "None"})
    world.look()
    world.end("demo-w0-0", 0, "Done")
    world.look()
    world.pods.clear()
    world.edit(replicas=1)

    decided = world.look()

    assert decided.create == ()
    assert world.parsed().is_true("Complete")


def test_clean_pod_policy_decides_what_remains() -> None:
    remains = {}
    for policy in ("None", "Running", "All"):
        world = World({"replicas": 2, "cleanPodPolicy": policy, "successPolicy": "Any"})
        world.look()
        world.end("demo-w0-0", 0, "Done")
        world.look()
        remains[policy] = sorted(world.pods)

    assert remains == {"None": ["demo-w0-0", "demo-w1-0"], "Running": ["demo-w0-0"], "All": []}


def test_finished_job_is_deleted_after_its_time_to_live() -> None:
    world = World({"replicas": 1, "ttlSecondsAfterFinished": 50})
    world.look()
    world.end("demo-w0-0", 0, "Done")
    finished = world.look()
    assert not finished.delete_job
    assert finished.wake_at == world.now + 50
    world.now += 50

    assert world.look().delete_job


def test_finished_job_is_not_deleted_while_its_final_state_is_handed_on() -> None:
    world = World({"replicas": 1, "ttlSecondsAfterFinished": 0})
    world.look()
    world.run("demo-w0-0")
    world.completed = True

    at_once = world.look()
    world.now += 30
    later = world.look()

    assert (at_once.delete_job, at_once.wake_at) == (False, world.now)
    assert later.delete_job
