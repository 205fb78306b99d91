"""What a status tells of the view, and which events follow from it."""

import json
from dataclasses import replace

import pytest

from dssync import contract
from dssync_operator.events import announce
from dssync_operator.job import format_time
from dssync_operator.pod import Pod
from dssync_operator.record import Record, View, parse_record
from dssync_operator.report import not_permitted, report
from dssync_operator.status import Clock, Incident, Status, Tally, parse_status, render_status
from ground.models import START, make_end, make_pod, make_spec_job

FORMED = Status(desired=3, clock=Clock(started=START, world_formed=START + 1))
PODS = tuple(make_pod(slot) for slot in range(3))


def make_lease(sequence: int, *uids: str, holder: str = "uid-0-0", pods: int = 0) -> Record:
    size = pods or len(uids)
    return Record(None, holder, 1, View(1, sequence, size, size), None, False, uids)


def told(
    pods: tuple[Pod, ...], record: Record | None, before: Status = FORMED, now: float = START + 9
) -> Status:
    """The status as the next look reads it."""
    rendered = render_status(report(make_spec_job(replicas=3), before, pods, record, None, now))
    return parse_status(rendered)


def workers(status: Status) -> dict[str, int]:
    found = status.display["workers"]
    assert isinstance(found, dict)
    return found


def reasons(before: Status, after: Status) -> list[str]:
    return [note.reason for note in announce(before, after)]


def test_launchers_of_the_view_are_read_from_the_lease() -> None:
    value = json.dumps([{"slot": 0, "uid": "a"}, {"slot": 1, "uid": "b"}])
    lease = {"metadata": {"annotations": {contract.RECORD_LAUNCHERS: value}}}
    spoiled = {"metadata": {"annotations": {contract.RECORD_LAUNCHERS: "["}}}

    assert parse_record(lease).launchers == ("a", "b")
    assert parse_record(spoiled).launchers == ()


def test_pod_that_runs_and_is_not_in_the_view_is_joining() -> None:
    status = told(PODS, make_lease(4, "uid-0-0", "uid-1-0"))

    assert workers(status)["joining"] == 1


def test_joining_pods_of_a_job_whose_record_lists_not_all_are_counted_by_number() -> None:
    assert workers(told(PODS, make_lease(4, "uid-0-0", pods=2)))["joining"] == 1


def test_pod_that_the_view_holds_and_that_is_gone_is_lost_until_the_view_knows() -> None:
    record = make_lease(4, "uid-0-0", "uid-1-0", "uid-2-0")

    before = told(PODS[:2], record)
    after = told(PODS[:2], make_lease(5, "uid-0-0", "uid-1-0"))

    assert workers(before)["lost"] == 1
    assert workers(after)["lost"] == 0


def test_pod_on_a_node_that_does_not_answer_is_lost_and_not_draining() -> None:
    stuck = replace(PODS[2], deleting=True, doomed_since=START)

    status = told((*PODS[:2], stuck), make_lease(4, "uid-0-0", "uid-1-0", "uid-2-0"))

    assert (workers(status)["lost"], workers(status)["draining"]) == (1, 0)


def test_view_before_the_world_formed_again_has_lost_nobody() -> None:
    resumed = replace(FORMED, clock=Clock(started=START))
    record = make_lease(4, "former-0", "former-1", holder="former-0")

    status = told(PODS, record, resumed)

    assert workers(status)["lost"] == 0
    assert status.conditions["Degraded"].reason == "AsWanted"


def test_time_of_the_last_change_moves_only_with_the_view() -> None:
    first = told(PODS, make_lease(4, "uid-0-0"), now=START + 5)
    same = told(PODS, make_lease(4, "uid-0-0"), first, now=START + 20)
    other = told(PODS, make_lease(5, "uid-0-0"), same, now=START + 30)

    times = []
    for status in (first, same, other):
        membership = status.display["membership"]
        assert isinstance(membership, dict)
        times.append(membership["lastChangeTime"])
    assert times == [format_time(START + seconds) for seconds in (5, 5, 30)]


def membership(status: Status) -> dict[str, object]:
    found = status.display["membership"]
    assert isinstance(found, dict)
    return found


def test_reason_of_the_last_change_is_what_the_view_gained_or_lost() -> None:
    status, reasons = FORMED, []
    for sequence, (uids, term) in enumerate(
        [("ab", 1), ("abc", 1), ("a", 1), ("b", 1), ("b", 1), ("bc", 2), ("", 2), ("ab", 3)]
    ):
        size = len(uids)
        record = Record(None, "a", term, View(term, sequence, size, size), None, False, ())
        status = told(PODS, record, status)
        reasons.append(membership(status)["lastChangeReason"])

    assert reasons == [
        "WorldFormed",
        "WorkersJoined",
        "WorkersLeft",
        "WorkersReplaced",
        "WorkersReplaced",
        "CoordinatorChanged",
        "WorkersLeft",
        "WorldFormed",
    ]


def test_reason_of_the_last_change_stays_with_the_view() -> None:
    first = told(PODS, make_lease(4, "uid-0-0"))
    grown = told(PODS, make_lease(5, "uid-0-0", "uid-1-0"), first)

    same = told(PODS, make_lease(5, "uid-0-0", "uid-1-0"), grown, now=START + 60)

    assert membership(same) == membership(grown)


def test_membership_of_another_version_is_told_as_far_as_it_goes() -> None:
    partial = Status(display={"membership": {"view": "1.2"}})

    assert reasons(Status(), partial) == ["ViewCommitted"]


def test_pods_that_a_view_gains_are_told_as_joined_and_a_first_view_is_not() -> None:
    first = told(PODS, make_lease(4, "uid-0-0", "uid-1-0"))
    grown = told(PODS, make_lease(5, "uid-0-0", "uid-1-0", "uid-2-0"), first)
    shrunk = told(PODS, make_lease(6, "uid-0-0"), grown)

    assert "WorkerJoined" not in reasons(FORMED, first)
    assert [note.message for note in announce(first, grown) if note.reason == "WorkerJoined"] == [
        "1 pods have joined: 3 take part"
    ]
    assert "WorkerJoined" not in reasons(grown, shrunk)


@pytest.mark.parametrize(
    "pods", [PODS[1:], (replace(PODS[0], ended=make_end()), *PODS[1:])], ids=["gone", "ended"]
)
def test_world_without_its_coordinator_is_degraded_and_the_failover_is_told_once(
    pods: tuple[Pod, ...],
) -> None:
    uids = ("uid-0-0", "uid-1-0", "uid-2-0")
    before = told(PODS, make_lease(4, *uids))
    without = told(pods, make_lease(4, *uids), before)
    after = told(pods, make_lease(5, *uids[1:], holder="uid-1-0"), without)

    assert without.conditions["Degraded"].reason == "CoordinatorFailover"
    assert reasons(before, without).count("CoordinatorFailover") == 1
    assert after.conditions["Degraded"].reason != "CoordinatorFailover"
    assert "CoordinatorFailover" not in reasons(without, after)
    assert "CoordinatorElected" in reasons(without, after)


def test_failover_that_was_faster_than_the_look_is_told_as_well() -> None:
    uids = ("uid-0-0", "uid-1-0", "uid-2-0")
    before = told(PODS, make_lease(4, *uids))

    after = told(PODS[1:], make_lease(5, *uids[1:], holder="uid-1-0"), before)

    assert [n.message for n in announce(before, after) if n.reason == "CoordinatorFailover"] == [
        "term 1: the pod with uid uid-1-0 coordinates, after uid-0-0"
    ]


FAILED_ONCE = replace(
    FORMED,
    tally=Tally(total=1, incidents=(Incident(START + 5, (2,)),)),
    termination_message="pod demo-w2-0 ended with exit code 1 (UserError)",
)


def trouble(status: Status) -> list[tuple[str, str]]:
    return [
        (kind, status.conditions[kind].reason)
        for kind in ("Resizing", "Degraded")
        if status.is_true(kind)
    ]


@pytest.mark.parametrize(
    ("state", "record"),
    [
        ({"phase": "Pending"}, make_lease(5, "uid-0-0", "uid-1-0")),
        ({"phase": "Pending"}, None),
        ({"phase": "Pending"}, make_lease(5, "uid-0-0", pods=2)),
        ({}, make_lease(5, "uid-0-0", "uid-1-0")),
    ],
    ids=["pending", "pending in a static job", "pending in a large job", "not joined yet"],
)
def test_failed_pod_whose_replacement_takes_no_part_yet_is_replaced(
    state: dict[str, str], record: Record | None
) -> None:
    status = told((*PODS[:2], make_pod(2, 1, **state)), record, FAILED_ONCE)

    assert trouble(status) == [("Degraded", "ReplacingWorker")]
    assert status.display["state"] == "Degraded"
    assert "demo-w2-0" in status.conditions["Degraded"].message


def test_replacement_that_fits_nowhere_is_told_in_the_words_of_the_scheduler() -> None:
    nowhere = make_pod(2, 1, phase="Pending", node="", waiting=("Unschedulable", "0/3 nodes fit"))

    status = told((*PODS[:2], nowhere), make_lease(5, "uid-0-0", "uid-1-0"), FAILED_ONCE)

    assert trouble(status) == [("Degraded", "ReplacingWorker")]
    assert "0/3 nodes fit" in status.conditions["Degraded"].message


def test_failed_pod_that_waits_for_its_replacement_is_replaced() -> None:
    status = told(PODS[:2], make_lease(5, "uid-0-0", "uid-1-0"), FAILED_ONCE)

    assert trouble(status) == [("Degraded", "ReplacingWorker")]


def test_replacement_that_takes_part_leaves_no_trouble() -> None:
    pods = (*PODS[:2], make_pod(2, 1))

    status = told(pods, make_lease(6, *(pod.uid for pod in pods)), FAILED_ONCE)

    assert trouble(status) == []


@pytest.mark.parametrize("phase", ["Pending", "Running"])
def test_job_that_grows_after_a_failure_is_scaling_up(phase: str) -> None:
    record = make_lease(6, *(pod.uid for pod in PODS))
    more = tuple(make_pod(slot, phase=phase) for slot in (3, 4))

    status = told((*PODS, *more), record, replace(FAILED_ONCE, desired=5))

    assert trouble(status) == [("Resizing", "ScalingUp")]
    assert status.display["state"] == "Resizing"


def test_job_that_grows_while_a_failed_pod_is_replaced_is_told_as_both() -> None:
    pods = (*PODS[:2], *(make_pod(slot, phase="Pending") for slot in (2, 3)))

    status = told(pods, make_lease(6, "uid-0-0", "uid-1-0"), replace(FAILED_ONCE, desired=4))

    assert trouble(status) == [("Resizing", "ScalingUp"), ("Degraded", "ReplacingWorker")]


def test_slot_that_failed_before_the_world_formed_anew_is_not_replaced_but_starts() -> None:
    start = replace(FAILED_ONCE, clock=Clock(started=START + 6))
    pods = tuple(replace(pod, phase="Pending") for pod in PODS)

    assert trouble(told(pods, make_lease(5, "former-0", "former-1"), start)) == []


def test_what_may_not_be_made_is_shown_with_the_time_at_which_it_began() -> None:
    first = not_permitted(Status(), Status(), "403 no role", START)
    accepted = first.with_condition("Accepted", True, "Valid", "", START + 5)

    again = not_permitted(first, accepted, "403 no role", START + 5)

    assert again.conditions == first.conditions
    assert first.conditions["Accepted"].reason == "NotPermitted"
    assert reasons(Status(), first) == ["NotPermitted"]
