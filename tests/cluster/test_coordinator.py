"""The coordinator's pod goes: another launcher takes over, and nobody is restarted."""

import pytest

from cluster.field import Field, Manifest, name_of, uid_of
from cluster.timeline import Timeline


@pytest.fixture
def pods(field: Field) -> list[Manifest]:
    """Three pods that train for longer than any test."""
    field.apply(field.digits("--epochs", "2000", replicas=3))
    return field.training(3)


@pytest.fixture
def leader(field: Field, pods: list[Manifest]) -> Manifest:
    """The coordinator's pod."""
    (found,) = [pod for pod in pods if uid_of(pod) == field.coordinator()]
    return found


def check(field: Field, pods: list[Manifest], leader: Manifest, timeline: Timeline) -> None:
    """Wait until others lead and a new pod contributes."""
    field.until(lambda: field.coordinator() != uid_of(leader), "another coordinator")
    timeline.add("another coordinator")
    field.until(lambda: field.term() > 1, "a view of the next term")
    timeline.add("view of the next term")
    field.contributes(field.replacement(pods))
    timeline.add("replacement contributes")


def test_a_deleted_coordinator_hands_over(
    field: Field, pods: list[Manifest], leader: Manifest, timeline: Timeline
) -> None:
    with field.steady([pod for pod in pods if pod is not leader]):
        timeline.begin("delete")
        field.run("delete", "pod", name_of(leader), "--wait=false")
        check(field, pods, leader, timeline)


def test_a_force_deleted_coordinator_is_followed_by_another(
    field: Field, pods: list[Manifest], leader: Manifest, timeline: Timeline
) -> None:
    with field.steady([pod for pod in pods if pod is not leader]):
        timeline.begin("force delete")
        field.run("delete", "pod", name_of(leader), "--force", "--grace-period=0")
        check(field, pods, leader, timeline)


def test_a_crashed_coordinator_is_followed_by_another(
    field: Field, pods: list[Manifest], leader: Manifest, timeline: Timeline
) -> None:
    with field.steady([pod for pod in pods if pod is not leader]):
        timeline.begin("crash")
        field.crash(leader)
        check(field, pods, leader, timeline)
