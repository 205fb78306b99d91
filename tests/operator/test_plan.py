"""What the operator decides, case by case."""

from dataclasses import replace
from typing import Any

from dssync_operator.job import format_time
from dssync_operator.plan import Seen, plan
from dssync_operator.record import Progress, View
from dssync_operator.report import report
from dssync_operator.status import render_status
from ground.models import START, World, make_end, make_pod, make_record, make_spec_job


def test_new_job_gets_one_pod_for_each_replica_in_the_lowest_slots() -> None:
    decided = plan(Seen(make_spec_job(replicas=3), (), None), START)

    assert [(new.slot, new.incarnation) for new in decided.create] == [(0, 0), (1, 0), (2, 0)]


def test_failed_pod_is_replaced_at_once_under_a_new_name() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w1-0", 1, "UserError")

    decided = world.look()

    assert [(new.slot, new.incarnation) for new in decided.create] == [(1, 1)]
    assert world.parsed().tally.total == 1


def test_failure_is_counted_once_however_often_it_is_seen() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w1-0", 1, "UserError")

    for _ in range(5):
        world.look()

    assert world.parsed().tally.total == 1
    assert len(world.parsed().tally.incidents) == 1


def test_second_failure_of_a_slot_waits_and_the_plan_says_until_when() -> None:
    world = World({"replicas": 1})
    world.look()
    world.end("demo-w0-0", 1, "UserError")
    world.look()
    world.now += 60
    world.end("demo-w0-1", 1, "UserError")

    decided = world.look()

    assert decided.create == ()
    assert decided.wake_at == world.now + 10
    world.now += 10
    assert [new.incarnation for new in world.look().create] == [2]


def test_pods_that_fail_together_are_one_incident() -> None:
    world = World({"replicas": 8, "failurePolicy": {"backoffLimit": 0 + 1}})
    world.look()
    for slot in range(8):
        world.end(f"demo-w{slot}-0", 1, "UserError")

    world.look()

    assert world.parsed().tally.total == 8
    assert len(world.parsed().tally.incidents) == 1
    assert not world.parsed().finished


def test_more_incidents_than_the_limit_fail_the_job() -> None:
    world = World({"replicas": 2, "failurePolicy": {"backoffLimit": 1}})
    world.look()
    for incarnation, slot in ((0, 0), (0, 1)):
        world.now += 30
        world.end(f"demo-w{slot}-{incarnation}", 3, "UserError")
        world.look()

    condition = world.parsed().conditions["Failed"]
    assert condition.true
    assert condition.reason == "BackoffLimitExceeded"
    assert "exit code 3" in condition.message


def test_failures_older_than_the_window_are_forgotten() -> None:
    world = World({"replicas": 1, "failurePolicy": {"backoffLimit": 1, "windowSeconds": 100}})
    world.look()
    for incarnation in range(4):
        world.end(f"demo-w0-{incarnation}", 1, "UserError")
        world.look()
        world.now += 101
        world.look()

    assert not world.parsed().finished
    assert world.parsed().tally.total == 4


def test_one_bad_slot_fails_the_job_by_its_own_limit() -> None:
    world = World({"replicas": 3, "failurePolicy": {"backoffLimitPerIndex": 1}})
    world.look()
    for incarnation in range(2):
        world.end(f"demo-w2-{incarnation}", 1, "UserError")
        world.look()
        world.now += 60

    assert "slot 2 failed 2 times" in world.parsed().conditions["Failed"].message


def test_ended_pod_is_deleted_only_after_its_failure_is_written() -> None:
    world = World({"replicas": 1})
    world.look()
    world.end("demo-w0-0", 1, "UserError")
    world.look()
    world.now += 60
    world.end("demo-w0-1", 1, "UserError")

    decided = world.look()

    assert [pod.name for pod in decided.delete] == ["demo-w0-0"]
    assert decided.delete[0].uid in decided.status.tally.accounted


def test_exit_of_a_pod_is_confirmed_in_the_record_before_it_is_replaced() -> None:
    world = World({"replicas": 2})
    world.look()
    uid = world.pods["demo-w1-0"].uid
    world.vanish("demo-w1-0")

    decided = world.look()

    assert decided.wanted is not None
    assert uid in decided.wanted.gone
    assert world.confirmed_late == []


def test_deleting_pod_is_replaced_at_once_and_confirmed() -> None:
    world = World({"replicas": 1})
    world.look()
    world.run("demo-w0-0")
    uid = world.pods["demo-w0-0"].uid
    world.ask_to_go("demo-w0-0")

    decided = world.look()

    assert [new.incarnation for new in decided.create] == [1]
    assert decided.wanted is not None
    assert uid in decided.wanted.gone


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


def test_exit_0_without_a_verdict_is_a_failure_with_a_name() -> None:
    world = World({"replicas": 1})
    world.look()
    world.end("demo-w0-0", 0, "")

    world.look()

    assert "NoVerdict" in world.parsed().termination_message


def test_completion_in_the_record_completes_whatever_the_pods_say() -> None:
    pods = (make_pod(0, ended=make_end(1)), make_pod(1))
    job = make_spec_job(replicas=2, failurePolicy={"backoffLimit": 0})

    decided = plan(Seen(job, pods, make_record(completed=True)), START + 100)

    assert decided.status.is_true("Complete")
    assert not decided.status.is_true("Failed")
    assert decided.delete == ()  # the final state is still handed on
    later = plan(
        Seen(make_spec_job({}, replicas=2), pods, make_record(completed=True)), START + 100
    )
    assert later.wake_at == START + 130


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


def test_all_does_not_wait_for_slots_that_were_scaled_away() -> None:
    world = World({"replicas": 3, "elastic": {"minReplicas": 1, "stabilizationSeconds": 0}})
    world.look()
    world.edit(replicas=2)
    world.look()
    for pod in world.live():
        world.end(pod.name, 0, "Done")

    world.look()

    assert world.parsed().is_true("Complete")


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


def test_do_not_restart_fails_the_job_at_once() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w0-0", 93, "")

    world.look()

    assert world.parsed().conditions["Failed"].reason == "WorkerExited"


def test_rules_fail_ignore_and_replace_elsewhere() -> None:
    rules = [
        {"name": "fatal", "action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
        {"name": "spot", "action": "Ignore", "onPodConditions": [{"type": "Preempted"}]},
        {
            "name": "bad-node",
            "action": "ReplaceWorker",
            "onExitCodes": {"operator": "In", "values": [7]},
        },
    ]
    spec = {"replicas": 3, "failurePolicy": {"rules": rules}}
    ends = {
        42: make_pod(0, ended=make_end(42)),
        7: make_pod(1, ended=make_end(7)),
        1: make_pod(2, ended=make_end(1), conditions=frozenset({("Preempted", "True")})),
    }

    def decide(code: int) -> object:
        return plan(Seen(make_spec_job(**spec), (ends[code],), None), START + 100)

    assert decide(42).status.conditions["Failed"].reason == "FailJobRuleMatched"
    assert decide(1).status.tally.total == 0
    assert decide(1).status.tally.planned == 1
    replaced = next(new for new in decide(7).create if new.slot == 1)
    assert replaced.shunned == ("node-a",)


def test_changed_template_of_a_running_job_is_not_taken_over() -> None:
    world = World({"replicas": 1})
    world.look()
    before = world.parsed().template_hash
    world.edit(template={"spec": {"containers": [{"name": "worker", "image": "new"}]}})

    world.look()

    assert world.parsed().conditions["Accepted"].reason == "TemplateChangedWhileRunning"
    assert world.parsed().template_hash == before


def test_invalid_template_makes_no_pods_until_it_is_mended() -> None:
    job = make_spec_job(replicas=1)

    decided = plan(Seen(job, (), None, template_problem="spec.containers: no image"), START)

    assert decided.create == ()
    assert decided.status.conditions["Accepted"].reason == "InvalidPodTemplate"


def test_pod_that_is_vanishing_is_let_vanish_so_that_all_lookers_choose_one_name() -> None:
    world = World({"replicas": 1})
    world.look()
    world.run("demo-w0-0")
    world.fade("demo-w0-0")

    during = world.look()
    world.vanish("demo-w0-0")
    after = world.look()

    assert during.create == ()
    assert during.wake_at == world.now + 5
    assert [(new.slot, new.incarnation) for new in after.create] == [(0, 0)]


def test_vanishing_pod_that_stays_is_replaced_under_a_new_name() -> None:
    world = World({"replicas": 1})
    world.look()
    world.fade("demo-w0-0")
    world.now += 5

    assert [(new.slot, new.incarnation) for new in world.look().create] == [(0, 1)]
