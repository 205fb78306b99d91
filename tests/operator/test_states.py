"""What the metrics tell of the states of jobs, without their names."""

from dssync_operator.metrics import Metrics
from dssync_operator.states import States

A, B = ("ns", "a"), ("ns", "b")


def told(metrics: Metrics, name: str) -> dict[str, float]:
    return {
        sample.labels["state"]: sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == f"dssync_operator_{name}"
    }


def test_since_of_a_state_is_that_of_the_job_that_is_in_it_for_longest() -> None:
    metrics = Metrics()
    states = States(metrics)

    states.note(A, "Pending", now=100.0, since=100.0)
    states.note(B, "Pending", now=150.0, since=150.0)
    states.note(A, "Pending", now=200.0, since=200.0)
    both = told(metrics, "state_since_timestamp_seconds")
    states.note(A, "Running", now=300.0, since=100.0)

    assert both == {"Pending": 100.0}
    assert told(metrics, "state_since_timestamp_seconds") == {"Pending": 150.0, "Running": 300.0}
    assert told(metrics, "jobs") == {"Pending": 1, "Running": 1}


def test_job_that_another_replica_has_left_in_its_state_is_in_it_as_long_as_its_conditions() -> (
    None
):
    metrics = Metrics()

    States(metrics).note(A, "BelowMin", now=9000.0, since=1000.0)

    assert told(metrics, "state_since_timestamp_seconds") == {"BelowMin": 1000.0}


def test_nothing_is_told_of_states_that_no_job_is_in() -> None:
    metrics = Metrics()
    states = States(metrics)
    states.note(A, "Pending", now=1.0, since=1.0)

    states.forget(A)
    states.forget(B)

    assert told(metrics, "state_since_timestamp_seconds") == {}
    assert told(metrics, "jobs") == {"Pending": 0}
