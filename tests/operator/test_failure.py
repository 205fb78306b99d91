"""What the end of a pod counts for, and when its slot is filled again, case by case."""

from dataclasses import replace

import pytest

from dssync_operator.plan import NewPod, Seen, plan, tell_made
from ground.models import START, make_end, make_pod, make_spec_job
from ground.world import World


def test_failed_pod_is_replaced_at_once_under_a_new_name() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w1-0", 1, "UserError")

    decided = world.look()

    assert [(new.slot, new.incarnation) for new in decided.create] == [(1, 1)]
    assert world.parsed().tally.total == 1


@pytest.mark.parametrize("verdict", ["UserError", "Done"])
def test_pod_whose_sidecar_goes_on_makes_room_once_its_end_is_counted(verdict: str) -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w1-0", 0 if verdict == "Done" else 1, verdict, sidecar=True)

    decided = world.look()

    assert [pod.name for pod in decided.delete] == ["demo-w1-0"]
    assert len(decided.create) == (verdict != "Done")
    assert len(decided.status.tally.accounted) == 1


@pytest.mark.parametrize("verdict", ["UserError", "Drained"])
def test_pod_whose_sidecar_goes_on_stays_while_its_replacement_has_to_wait(verdict: str) -> None:
    world = World({"replicas": 2})
    world.look()
    if verdict == "UserError":
        world.end("demo-w1-0", 1, verdict)
        world.look()
        world.end("demo-w1-1", 1, verdict, sidecar=True)  # the second one waits
    else:
        world.end("demo-w1-0", 0, verdict, sidecar=True)  # ten seconds from when it was made

    waiting = world.look()
    assert waiting.wake_at is not None
    world.now = waiting.wake_at
    decided = world.look()

    assert (waiting.create, waiting.delete) == ((), ())
    assert [new.slot for new in decided.create] == [1]
    assert [pod.slot for pod in decided.delete if pod.held] == [1]


def test_log_of_the_pod_before_outlives_one_whose_sidecar_went_on() -> None:
    world = World({"replicas": 2})
    world.look()
    world.end("demo-w1-0", 1, "UserError")
    world.look()
    world.end("demo-w1-1", 1, "UserError", sidecar=True)
    world.now = world.look().wake_at or 0.0

    assert [pod.name for pod in world.look().delete] == ["demo-w1-1"]


def test_pods_in_place_of_others_are_told_apart_from_the_rest() -> None:
    wanted = [NewPod(0, 0, "Start"), *(NewPod(slot, 1, "Replace") for slot in range(1, 13))]

    told = tell_made([make_pod(slot) for slot in range(12)], wanted)

    assert [(note.reason, note.message) for note in told] == [
        ("WorkerCreated", "created 1 pods"),
        (
            "WorkerReplaced",
            "created 11 pods in place of others, for slots 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...",
        ),
    ]
    assert tell_made([], wanted) == ()


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


@pytest.mark.parametrize("skew_seconds", [7200, -7200])
def test_clock_of_a_node_moves_no_back_off(skew_seconds: int) -> None:
    world = World({"replicas": 1})
    world.look()
    for incarnation in range(2):
        world.end(f"demo-w0-{incarnation}", 1, "UserError")
        name, ended = f"demo-w0-{incarnation}", make_end(at=world.now + skew_seconds)
        world.pods[name] = replace(world.pods[name], ended=ended)
        decided = world.look()

    assert decided.create == ()
    assert decided.wake_at == world.now + 10
    assert len(world.parsed().tally.incidents) == 2


def test_pod_that_crashes_at_once_is_replaced_ever_more_slowly_in_the_shortest_window() -> None:
    world = World({"replicas": 1, "failurePolicy": {"windowSeconds": 60, "backoffLimit": 1000}})
    world.look()
    for _ in range(600):
        for pod in world.live():
            world.end(pod.name, 1, "UserError")
        world.now += 1
        world.look()

    assert world.created < 50


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


def test_failures_that_are_seen_only_after_the_window_are_counted_and_forgotten() -> None:
    world = World({"replicas": 2, "failurePolicy": {"backoffLimit": 1, "windowSeconds": 100}})
    world.look()
    for slot in range(2):  # while no operator runs
        world.end(f"demo-w{slot}-0", 1, "UserError")
        world.now += 60
    world.now += 100

    world.look()

    assert not world.parsed().finished
    assert (world.parsed().tally.total, world.parsed().tally.incidents) == (2, ())


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


def test_exit_0_without_a_verdict_is_a_failure_with_a_name() -> None:
    world = World({"replicas": 1})
    world.look()
    world.end("demo-w0-0", 0, "")

    world.look()

    assert "NoVerdict" in world.parsed().termination_message


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


def test_pod_that_is_killed_while_its_job_is_suspended_is_no_failure() -> None:
    world = World({"replicas": 2, "failurePolicy": {"backoffLimit": 0}})
    world.look()
    world.run("demo-w1-0")
    world.edit(suspend=True)
    world.look()
    world.now += 60
    world.end("demo-w1-0", 137, "")

    world.look()

    assert not world.parsed().finished
    assert (world.parsed().tally.total, world.parsed().tally.planned) == (0, 1)


def test_exit_code_of_a_pod_that_was_asked_to_go_matches_no_rule() -> None:
    codes = {"operator": "In", "values": [143]}
    rule = {"name": "fatal", "action": "FailJob", "onExitCodes": codes}
    elastic = {"minReplicas": 1, "stabilizationSeconds": 0}
    world = World({"replicas": 2, "elastic": elastic, "failurePolicy": {"rules": [rule]}})
    world.look()
    for name in list(world.pods):
        world.run(name)
    world.edit(replicas=1)
    world.look()
    world.end("demo-w1-0", 143, "")

    world.look()

    assert not world.parsed().finished
    assert world.parsed().tally.total == 0


def test_condition_of_a_pod_that_was_evicted_matches_its_rule() -> None:
    disrupted = ("DisruptionTarget", "True")
    rule = {"name": "fatal", "action": "FailJob", "onPodConditions": [{"type": disrupted[0]}]}
    pod = make_pod(
        0, ended=make_end(143), deleting=True, doomed_since=START, conditions=frozenset({disrupted})
    )
    judged = {
        name: plan(Seen(make_spec_job(replicas=1, failurePolicy=policy), (pod,), None), START + 100)
        for name, policy in {"rule": {"rules": [rule]}, "none": {}}.items()
    }

    assert judged["rule"].status.conditions["Failed"].reason == "FailJobRuleMatched"
    assert judged["none"].notes[0].message.endswith("(Disrupted)")


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


def test_slot_that_fails_twice_within_seconds_is_two_incidents() -> None:
    world = World({"replicas": 1})
    world.look()
    for incarnation in range(2):
        world.end(f"demo-w0-{incarnation}", 1, "UserError")
        world.look()

    assert [incident.slots for incident in world.parsed().tally.incidents] == [(0,), (0,)]


def test_pod_that_is_gone_without_a_word_is_told_of_and_a_drained_one_is_not() -> None:
    world = World({"replicas": 3, "elastic": {"stabilizationSeconds": 0}})
    world.look()
    world.vanish("demo-w2-0")

    lost = world.look()
    world.edit(replicas=2)
    drained = (world.look(), world.look())

    (note,) = lost.notes
    assert (note.reason, note.kind) == ("WorkerLost", "Warning")
    assert note.message == "1 pods are gone without a word; new ones are made for slots 2"
    assert "WorkerLost" not in {note.reason for each in drained for note in each.notes}
