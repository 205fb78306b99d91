"""A real Prometheus finds operator and launchers and knows what the launchers have printed."""

import re

import pytest
import yaml

from cluster.builds import build_image
from cluster.field import Field, Manifest, name_of, uid_of
from cluster.release import Release, operators
from cluster.scraping import DOCKERFILE, IMAGE, Prometheus
from ground.kind.cluster import Cluster

CHANGES = 'sum(dssync_membership_changes_total{{dssync_job="digits",kind="{}"}})'
REFORMS = "dssync_reform_duration_seconds"


@pytest.fixture
def monitors(release: Release) -> list[Manifest]:
    """The chart's monitors as a cluster with the Prometheus operator would get them."""
    monitor = {"enabled": True}
    text = release.rendered(
        "templates/monitors.yaml", metrics={"serviceMonitor": monitor, "podMonitor": monitor}
    )
    return [each for each in yaml.safe_load_all(text) if each]


@pytest.fixture
def prometheus(field: Field, monitors: list[Manifest]) -> Prometheus:
    """A Prometheus that follows them."""
    if field.on_node is not None:
        build_image(Cluster(), IMAGE, DOCKERFILE, DOCKERFILE.parent)
    return Prometheus(field, monitors)


def printed(field: Field, event: str, *words: str) -> list[str]:
    """Lines about an event that launchers have printed."""
    lines = [line for line in field.said().splitlines() if line.startswith(f"dssync {event} ")]
    return [line for line in lines if all(word in line for word in words)]


def test_prometheus_knows_what_the_launchers_have_printed(
    field: Field, prometheus: Prometheus
) -> None:
    field.apply(field.digits("--epochs", "2000", replicas=3))
    pods = field.training(3)
    names = {name_of(pod) for pod in pods}
    victim = next(pod for pod in pods if uid_of(pod) != field.coordinator())
    (worker,) = field.workers(victim)
    prometheus.discover()

    field.kill(victim, worker[0])
    field.until(lambda: len(printed(field, "contributes")) >= 1, "the worker's return")
    field.training(3)

    field.until(lambda: prometheus.ask('dssync_round{local_rank="0"}').keys() == names, "all pods")
    for kind in ("join", "leave", "evict"):
        lines = len(printed(field, kind))
        query = CHANGES.format(kind)
        field.until(lambda q=query, n=lines: prometheus.number(q) == n, f"{lines} x {kind}")  # type: ignore[misc]
    restarts = len(printed(field, "exited", "action=restart"))
    assert restarts == 1
    field.until(
        lambda: prometheus.number("sum(dssync_worker_restarts_total)") == restarts, "one restart"
    )
    reforms = [float(re.findall(r"\bseconds=(\S+)", x)[0]) for x in printed(field, "reform")]
    assert reforms
    assert prometheus.number(f"sum({REFORMS}_count)") == len(reforms)
    assert prometheus.number(f"sum({REFORMS}_sum)") == pytest.approx(sum(reforms), abs=1e-3)
    (leader,) = [pod for pod in pods if uid_of(pod) == field.coordinator()]
    assert prometheus.ask("dssync_coordinator_leader == 1").keys() == {name_of(leader)}
    assert prometheus.ask('dssync_members{state="active"} == 3').keys() == {name_of(leader)}
    rounds = prometheus.number("sum(rate(dssync_sync_rounds_total[5s]))")
    assert rounds > 0


def test_prometheus_finds_both_replicas_of_the_operator(
    field: Field, prometheus: Prometheus
) -> None:
    replicas = set(map(name_of, operators(field.kubectl)))
    assert len(replicas) == 2
    prometheus.discover()

    field.until(
        lambda: prometheus.ask("dssync_operator_leader").keys() == replicas,
        "both replicas",
    )

    assert prometheus.number("sum(dssync_operator_leader)") == 1
    assert set(prometheus.ask('up{job=~"ServiceMonitor.*"}').values()) == {1.0}
