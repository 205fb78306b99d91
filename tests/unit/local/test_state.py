"""Which pods a local job has, decided without processes: fill, replace, scale, end."""

import signal
from collections.abc import Iterable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dssync.contract import VERDICT_DO_NOT_RESTART, VERDICT_DONE, VERDICT_DRAINED
from dssync.local import manifest
from dssync.local.failures import Ended
from dssync.local.state import (
    Effect,
    Formed,
    Halted,
    JobState,
    LookAgain,
    Looked,
    Outcome,
    Resize,
    Result,
    Say,
    Scaled,
    Start,
    Started,
    Stop,
)

JOB = """
apiVersion: dssync.io/v1alpha1
kind: DSSyncJob
metadata: {name: demo}
spec:
  replicas: 3
  elastic: {minReplicas: 1, maxReplicas: 5}
  failurePolicy:
    backoffLimit: 2
    rules: [{name: user, action: FailJob, onExitCodes: {operator: In, values: [3]}}]
  template: {spec: {containers: [{name: worker, command: [dssync, run, train.py]}]}}
"""
KILLED = -signal.SIGKILL
DRAIN = Halted(Outcome(Result.DRAINED, "asked"))


def started(text: str = JOB) -> JobState:
    state = JobState(manifest.parse(text, "job.yaml"))
    state.handle(Started(), 0.0)
    return state


def acts(effects: Iterable[Effect]) -> list[Effect]:
    """Effects without what is told to the user."""
    return [effect for effect in effects if not isinstance(effect, Say)]


def test_a_job_starts_the_pods_that_it_wants_in_the_lowest_slots() -> None:
    state = JobState(manifest.parse(JOB, "job.yaml"))

    effects = state.handle(Started(), 0.0)

    assert acts(effects) == [Start(0), Start(1), Start(2)]


def test_a_lost_pod_is_replaced_in_its_own_slot() -> None:
    effects = started().handle(Ended(1, KILLED), 1.0)

    assert effects == [Say("pod 1 ended (killed by SIGKILL)"), Start(1)]


def test_scaling_up_fills_the_lowest_free_slots_after_the_record_says_so() -> None:
    effects = started().handle(Scaled(5), 1.0)

    assert acts(effects) == [Resize(5), Start(3), Start(4)]


def test_scaling_down_drains_the_highest_slots_and_does_not_refill_them() -> None:
    state = started()

    effects = state.handle(Scaled(1), 1.0)

    assert acts(effects) == [Resize(1), Stop(1), Stop(2)]
    assert acts(state.handle(Ended(2, 0, VERDICT_DRAINED), 2.0)) == []


def test_a_pod_that_was_told_to_go_cannot_fail() -> None:
    state = started()

    for turn in range(9):
        state.handle(Scaled(2), 60.0 * turn)
        assert acts(state.handle(Ended(2, KILLED), 60.0 * turn + 1)) == []
        state.handle(Scaled(3), 60.0 * turn + 2)

    assert state.outcome is None


def test_a_slot_is_not_used_again_before_its_pod_has_ended() -> None:
    state = started()
    state.handle(Scaled(2), 1.0)

    assert acts(state.handle(Scaled(5), 2.0)) == [Resize(5), Start(3), Start(4)]
    assert acts(state.handle(Ended(2, 0, VERDICT_DRAINED), 3.0)) == [Start(2)]


def test_a_pod_that_drained_unasked_is_replaced_and_not_counted() -> None:
    state = started()

    ends = [20.0 * turn for turn in range(1, 10)]
    effects = [state.handle(Ended(0, 0, VERDICT_DRAINED), now) for now in ends]

    assert [acts(each) for each in effects] == [[Start(0)]] * 9


def test_a_pod_that_leaves_as_soon_as_it_comes_is_replaced_after_ten_seconds() -> None:
    assert acts(started().handle(Ended(0, 0, VERDICT_DRAINED), 1.0)) == [LookAgain(9.0)]


def test_more_failures_than_the_limit_end_the_job() -> None:
    state = started()
    for turn in range(2):
        state.handle(Ended(0, 1), 20.0 * turn)
        state.handle(Looked(), 20.0 * turn + 15.0)

    effects = state.handle(Ended(0, 1), 60.0)

    assert acts(effects) == [Stop(1), Stop(2)]
    assert state.outcome == Outcome(
        Result.FAILED, "3 failures within 3600 s exceed failurePolicy.backoffLimit 2"
    )


def test_pods_that_fail_together_are_one_incident() -> None:
    state = started()

    for turn in range(2):
        for slot in range(3):
            state.handle(Ended(slot, KILLED), 60.0 * turn + slot)
        assert Stop not in map(type, state.handle(Looked(), 60.0 * turn + 30.0))

    assert state.outcome is None


def test_a_crash_loop_of_one_slot_is_many_incidents() -> None:
    state = started()
    for second in (0.0, 1.0, 12.0):
        state.handle(Looked(), second)
        state.handle(Ended(0, 1), second)

    assert state.outcome is not None


def test_failures_older_than_the_window_are_forgotten() -> None:
    state = started()

    for turn in range(9):
        state.handle(Ended(0, 1), 1801.0 * turn)
        state.handle(Looked(), 1801.0 * turn + 10.0)

    assert state.outcome is None


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        (Ended(1, 3), "pod 1 ended (code 3)"),
        (Ended(1, 127), "pod 1 ended (code 127)"),
        (Ended(1, 93, VERDICT_DO_NOT_RESTART, "asked"), "pod 1 ended (DoNotRestart: asked)"),
    ],
)
def test_an_end_that_would_repeat_fails_the_job_at_once(ended: Ended, reason: str) -> None:
    state = started()

    effects = state.handle(ended, 1.0)

    assert acts(effects) == [Stop(0), Stop(2)]
    assert state.outcome == Outcome(Result.FAILED, reason)


ANY = JOB.replace("spec:\n  replicas", "spec:\n  successPolicy: Any\n  replicas")


@pytest.mark.parametrize(
    ("text", "ended"), [(ANY, Ended(1, 0, VERDICT_DONE)), (JOB, Ended(1, KILLED, completed=True))]
)
def test_a_recorded_completion_or_the_first_done_of_any_ends_the_job_and_lets_the_others_finish(
    text: str, ended: Ended
) -> None:
    state = started(text)

    effects = state.handle(ended, 1.0)

    assert acts(effects) == [Stop(0, 15.0), Stop(2, 15.0)]
    assert state.outcome is not None
    assert state.outcome.result is Result.COMPLETE
    assert not state.over


def test_with_the_policy_all_every_pod_has_to_be_done() -> None:
    state = started()

    assert acts(state.handle(Ended(1, 0, VERDICT_DONE), 1.0)) == [], "its slot is not filled again"
    assert acts(state.handle(Ended(0, 0, VERDICT_DONE), 2.0)) == []
    assert state.outcome is None

    state.handle(Ended(2, 0, VERDICT_DONE), 3.0)

    assert state.outcome == Outcome(Result.COMPLETE, "all 3 pods are done")
    assert state.over


def test_slots_that_are_scaled_away_are_not_waited_for() -> None:
    state = started()
    state.handle(Ended(0, 0, VERDICT_DONE), 1.0)
    assert acts(state.handle(Scaled(1), 2.0)) == [Resize(1), Stop(1), Stop(2)]
    state.handle(Ended(1, 0, VERDICT_DONE), 3.0)

    state.handle(Ended(2, 0, VERDICT_DONE), 4.0)

    assert state.outcome == Outcome(Result.COMPLETE, "all 3 pods are done")


def test_each_further_failure_of_a_slot_is_replaced_later() -> None:
    state = started(JOB.replace("backoffLimit: 2", "backoffLimit: 9"))

    assert acts(state.handle(Ended(1, 1), 100.0)) == [Start(1)], "the first one at once"
    assert acts(state.handle(Ended(1, 1), 200.0)) == [LookAgain(10.0)]
    assert acts(state.handle(Looked(), 209.0)) == [LookAgain(1.0)]
    assert acts(state.handle(Looked(), 210.0)) == [Start(1)]
    assert acts(state.handle(Ended(1, 1), 300.0)) == [LookAgain(20.0)]


def test_a_slot_that_waits_keeps_its_place() -> None:
    state = started(JOB.replace("backoffLimit: 2", "backoffLimit: 9"))
    state.handle(Ended(0, 1), 100.0)
    state.handle(Ended(0, 1), 200.0)

    assert acts(state.handle(Scaled(4), 201.0)) == [Resize(4), Start(3), LookAgain(9.0)]
    assert acts(state.handle(Looked(), 210.0)) == [Start(0)]


def test_drained_pods_never_complete_a_job() -> None:
    state = started()

    assert acts(state.handle(DRAIN, 1.0)) == [Stop(0), Stop(1), Stop(2)]
    for slot in range(3):
        assert not state.over
        assert acts(state.handle(Ended(slot, 0, VERDICT_DRAINED), 2.0)) == []

    assert state.over
    assert state.outcome == DRAIN.outcome


def test_a_job_that_was_completed_while_it_drained_is_complete() -> None:
    state = started()
    state.handle(DRAIN, 1.0)

    state.handle(Ended(0, 0, VERDICT_DONE, completed=True), 2.0)

    assert state.outcome == Outcome(Result.COMPLETE, "the record says so")


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens in whatever order, slots hold one pod each and numbers are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.state = JobState(manifest.parse(JOB.replace("backoffLimit: 2", "backoffLimit: 9"), ""))
        self.running: set[int] = set()
        self.done: set[int] = set()
        self.stopped: set[int] = set()
        self.desired, self.now = 3, 0.0
        self.feed(Started())

    def feed(self, event: Started | Scaled | Halted | Ended) -> None:
        self.now += 1.0
        for effect in self.state.handle(event, self.now):
            if isinstance(effect, Start):
                assert effect.slot not in self.running
                self.running.add(effect.slot)
            if isinstance(effect, Stop):
                assert effect.slot in self.running - self.stopped
                self.stopped.add(effect.slot)
            if isinstance(effect, Resize):
                self.desired = effect.desired

    @rule(desired=st.integers(1, 5))
    def scale(self, desired: int) -> None:
        self.feed(Scaled(desired))

    @precondition(lambda self: self.running)
    @rule(
        data=st.data(),
        end=st.sampled_from([(0, VERDICT_DRAINED), (1, ""), (KILLED, ""), (0, VERDICT_DONE)]),
    )
    def end(self, data: st.DataObject, end: tuple[int, str]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.running)))
        self.running.discard(slot)
        self.stopped.discard(slot)
        if end[1] == VERDICT_DONE and self.state.outcome is None:
            self.done.add(slot)
        self.feed(Ended(slot, *end))
        self.now += 400.0  # longer than any wait
        self.feed(Looked())

    @rule()
    def drain(self) -> None:
        self.feed(DRAIN)

    @invariant()
    def keeps_its_numbers(self) -> None:
        staying = self.running - self.stopped
        if self.state.outcome is not None:
            assert staying == set()
            assert self.state.over == (not self.running)
        else:
            assert self.running <= set(range(5))
            assert not self.running & self.done
            places = 5 - len(self.stopped | self.done)
            assert len(staying) == max(0, min(self.desired - len(self.done), places))


TestAnyOrder = AnyOrder.TestCase


PATIENT = JOB.replace("minReplicas: 1,", "minReplicas: 3, belowMinTimeoutSeconds: 4,")


def below_minimum(text: str = PATIENT, formed: bool = True) -> JobState:
    """A job whose slot 0 failed for the second time at 21 s, so that it waits for ten seconds."""
    state = started(text)
    if formed:
        state.handle(Formed(), 1.0)
    state.handle(Ended(0, KILLED), 10.0)
    state.handle(Ended(0, KILLED), 21.0)
    return state


def test_world_with_fewer_pods_than_its_minimum_is_given_up_after_its_patience() -> None:
    state = below_minimum()
    assert LookAgain(1.0) in state.handle(Looked(), 24.0)
    assert state.outcome is None

    effects = state.handle(Looked(), 25.0)

    assert acts(effects) == [LookAgain(6.0), Stop(1), Stop(2)]
    assert state.outcome == Outcome(
        Result.FAILED,
        "fewer than elastic.minReplicas 3 pods ran for elastic.belowMinTimeoutSeconds 4",
    )


def test_patience_begins_anew_once_there_were_enough_pods() -> None:
    state = below_minimum(PATIENT.replace("Seconds: 4", "Seconds: 12"))
    assert Start(0) in state.handle(Looked(), 31.0)

    assert state.handle(Looked(), 40.0) == []
    assert state.outcome is None


@pytest.mark.parametrize("formed", [True, False])
def test_no_patience_ends_where_none_is_said_or_no_world_has_formed(formed: bool) -> None:
    state = below_minimum(JOB if formed else PATIENT, formed)

    state.handle(Looked(), 29.0)

    assert state.outcome is None


HASTY = JOB.replace("replicas:", "startupDeadlineSeconds: 7\n  replicas:", 1)


def test_job_whose_first_world_does_not_form_in_time_is_given_up() -> None:
    state = JobState(manifest.parse(HASTY, "job.yaml"))
    assert LookAgain(7.0) in state.handle(Started(), 1.0)
    assert LookAgain(0.5) in state.handle(Looked(), 7.5)

    effects = state.handle(Looked(), 8.0)

    assert acts(effects) == [Stop(0), Stop(1), Stop(2)]
    assert state.outcome == Outcome(
        Result.FAILED, "no world formed within startupDeadlineSeconds 7"
    )


def test_world_that_formed_in_time_may_fall_apart_later() -> None:
    state = JobState(manifest.parse(HASTY, "job.yaml"))
    state.handle(Started(), 1.0)
    state.handle(Formed(), 7.9)

    state.handle(Looked(), 8.0)

    assert state.outcome is None
