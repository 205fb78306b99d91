"""Settings, events, the token bucket and logs."""

import json
import logging
from dataclasses import replace

import pytest

from dssync import contract
from dssync_operator.errors import SettingsError
from dssync_operator.events import Damper, Note, announce
from dssync_operator.job import WorkerRbac
from dssync_operator.logs import JsonFormatter
from dssync_operator.owed import Owed
from dssync_operator.policies.nodes import place_of, unreachable
from dssync_operator.record import MAX_GONE, PODS, Wanted, parse_record
from dssync_operator.settings import read_settings
from dssync_operator.status import Status
from dssync_operator.throttle import TokenBucket
from ground.models import START, make_pod


def test_settings_are_read_by_name_and_kind() -> None:
    given = {
        "DSSYNC_OPERATOR_QPS": "20.5",
        "DSSYNC_OPERATOR_NAMESPACES": "a, b",
        "DSSYNC_OPERATOR_NETWORK_POLICY": "true",
        "DSSYNC_OPERATOR_WORKER_RBAC": "Namespace",
        "HOME": "/root",
    }

    settings = read_settings(given)

    assert (settings.qps, settings.namespaces, settings.network_policy) == (20.5, ("a", "b"), True)
    assert settings.worker_rbac is WorkerRbac.NAMESPACE


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("QPS", "0", "expected more than 0"),
        ("BURST", "1.5", "expected a number"),
        ("NETWORK_POLICY", "yes", "expected true or false"),
        ("WORKER_RBAC", "Cluster", "expected PerJob, Namespace or None"),
        ("QSP", "1", "is no setting"),
    ],
)
def test_wrong_setting_is_named(name: str, value: str, sentence: str) -> None:
    with pytest.raises(SettingsError, match=sentence):
        read_settings({f"DSSYNC_OPERATOR_{name}": value})


def test_lease_that_runs_out_before_a_renewal_may_fail_once_is_refused() -> None:
    enough = {"DSSYNC_OPERATOR_LEASE_SECONDS": "3", "DSSYNC_OPERATOR_RENEW_SECONDS": "1.2"}

    assert read_settings(enough).renew_seconds == 1.2
    with pytest.raises(SettingsError, match=r"RENEW_SECONDS is 2.5; .*LEASE_SECONDS of 3.* 1.2"):
        read_settings({"DSSYNC_OPERATOR_LEASE_SECONDS": "3"})


async def test_bucket_lets_a_burst_through_and_then_the_rate() -> None:
    clock, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    bucket = TokenBucket(10.0, 5, lambda: clock[0], sleep)
    for _ in range(25):
        await bucket.take()

    assert len(slept) == 20
    assert clock[0] == pytest.approx(2.0)


async def test_idle_bucket_saves_no_more_than_its_burst() -> None:
    clock, slept = [0.0], []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    bucket = TokenBucket(8.0, 3, lambda: clock[0], sleep)
    clock[0] = 1024.0
    for _ in range(4):
        await bucket.take()

    assert len(slept) == 1


def test_same_reason_is_told_once_in_thirty_seconds_with_a_count() -> None:
    damper, note = Damper(), Note("WorkerFailed", "pod ended")

    told = [damper.admit("uid", [note], now) for now in (0.0, 5.0, 10.0, 30.0)]

    assert [len(each) for each in told] == [1, 0, 0, 1]
    assert told[-1][0].message == "pod ended (and 2 more)"
    assert damper.admit("other", [note], 31.0) == (note,)


def test_event_of_a_job_that_was_forgotten_is_told_at_once() -> None:
    damper, note = Damper(), Note("WorkerFailed", "pod ended")
    damper.admit("uid", [note], 0.0)

    damper.forget("uid")
    damper.forget("never heard of")

    assert damper.admit("uid", [note], 1.0) == (note,)


def test_condition_is_announced_when_it_changes_and_only_then() -> None:
    failed = Status().with_condition("Failed", True, "DeadlineExceeded", "too long", START)

    assert announce(Status(), failed) == (Note("DeadlineExceeded", "too long"),)
    assert announce(failed, failed) == ()
    assert announce(Status(), failed)[0].kind == "Warning"


def shown(view: str, term: int, coordinator: str) -> Status:
    membership = {"view": view, "term": term, "worldSize": 4, "coordinator": coordinator}
    return Status(display={"activeReplicas": 2, "membership": membership})


def test_new_view_and_new_coordinator_are_told_and_their_loss_is_not() -> None:
    first, grown, followed = shown("1.4", 1, "a"), shown("1.5", 1, "a"), shown("2.6", 2, "b")
    elected = Note("CoordinatorElected", "term 2: the pod with uid b coordinates")

    assert [note.reason for note in announce(Status(), first)] == [
        "CoordinatorElected",
        "ViewCommitted",
    ]
    assert announce(first, grown) == (Note("ViewCommitted", "view 1.5: 2 pods with 4 workers"),)
    assert announce(grown, followed)[0] == elected
    assert announce(followed, followed) == announce(followed, Status()) == ()


def test_job_that_was_listed_and_never_told_of_is_owed_until_it_is() -> None:
    now = [100.0]
    owed = Owed(lambda: now[0])
    owed.told(("ns", "old"), 1)
    owed.listed({("ns", "old"): 1, ("ns", "new"): 1})
    now[0] += 30
    owed.listed({("ns", "old"): 2, ("ns", "new"): 1})
    first = owed.oldest()
    owed.told(("ns", "new"), 1)
    second = owed.oldest()
    owed.gone(("ns", "old"))

    assert first == (("ns", "new"), 30.0)
    assert second == (("ns", "old"), 0.0)
    assert owed.oldest() is None


def test_log_line_is_one_json_object() -> None:
    record = logging.LogRecord("dssync_operator", 20, "f", 1, "job %s\nnext", ("a",), None)

    line = JsonFormatter().format(record)

    assert "\n" not in line
    assert json.loads(line)["message"] == "job a\nnext"


def test_place_keeps_its_columns_where_a_label_is_missing() -> None:
    keys = ("zone", "rack")

    assert place_of({"zone": "a", "rack": "r7"}, keys) == "a/r7"
    assert place_of({"rack": "r/7"}, keys) == "-/r_7"


def test_pod_is_unreachable_only_well_after_its_grace_period() -> None:
    pod = make_pod(deleting=True, doomed_since=START)

    assert unreachable([pod], START + 5) == ()
    assert unreachable([pod], START + 5.1) == (pod,)


def test_pod_that_ended_before_it_was_ever_known_is_confirmed_as_gone() -> None:
    wanted = Wanted(desired=2, minimum=1, maximum=2, known=("b",))

    confirmed = wanted.confirm(present=("a", "b"), ended=("a",))

    assert (confirmed.known, confirmed.gone) == (("b",), ("a",))


def test_pod_that_still_exists_is_known_as_gone_only_once() -> None:
    wanted = Wanted(desired=2, minimum=1, maximum=2, known=("a", "b"), gone=("a",))

    confirmed = wanted.confirm(present=("a", "b"), ended=())

    assert (confirmed.known, confirmed.gone) == (("b",), ("a",))


def test_pod_that_may_come_back_is_not_forgotten_for_younger_ones_that_cannot() -> None:
    full = Wanted(2000, 1, 2000, gone=("stuck", *(f"old-{n}" for n in range(MAX_GONE - 1))))
    lost = tuple(f"new-{n}" for n in range(10))

    confirmed = replace(full, known=lost).confirm(present=("stuck",), ended=())

    assert len(confirmed.gone) == MAX_GONE
    assert confirmed.gone[:2] == ("stuck", "old-10")
    assert confirmed.gone[-10:] == lost
    assert confirmed.confirm(present=("stuck",), ended=()) == confirmed


@pytest.mark.parametrize("spoilt", ["", "{", "7", '{"a":1}', "[1]", "[" * 8000])
def test_entry_of_our_own_that_somebody_spoilt_counts_as_not_written(spoilt: str) -> None:
    whole = Wanted(2, 1, 2, known=("a",), gone=("b",))

    for key in (PODS, contract.RECORD_GONE, contract.RECORD_NODES, contract.RECORD_DESIRED):
        annotations = {**whole.annotations(), key: spoilt}
        found = parse_record({"metadata": {"annotations": annotations}}).wanted

        expected = {
            PODS: replace(whole, known=()),
            contract.RECORD_GONE: replace(whole, gone=()),
            contract.RECORD_NODES: whole,
            contract.RECORD_DESIRED: replace(whole, desired=7 if spoilt == "7" else -1),
        }
        assert found == expected[key]


def test_time_of_a_condition_moves_only_with_its_truth() -> None:
    first = Status().with_condition("Running", True, "WorldFormed", "", 10.0)

    same = first.with_condition("Running", True, "Resumed", "", 20.0)
    other = same.with_condition("Running", False, "NoProgress", "", 30.0)

    assert same.conditions["Running"].since == 10.0
    assert other.conditions["Running"].since == 30.0
