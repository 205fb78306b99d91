"""The launcher's registry, its endpoint, and what workers may push."""

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator

import pytest
from prometheus_client import generate_latest

from dssync.agent.endpoint import MetricsEndpoint
from dssync.agent.metrics import Metrics
from dssync.agent.series import EVENT_BUCKETS, ROUND_BUCKETS, SERIES
from dssync.control.measurements import Amount, Delta, Observed
from dssync.errors import ProtocolError, UsageError


def test_a_workers_delta_is_merged() -> None:
    metrics = Metrics()

    for _ in range(2):
        metrics.apply(
            Delta(
                (Observed("dssync_sync_phase_duration_seconds", {"phase": "build"}, (0.2, 0.3)),),
                (Amount("dssync_sync_rounds_total", {"result": "committed"}, 3),),
                (Amount("dssync_round", {"local_rank": "1"}, 7),),
            )
        )

    value = metrics.registry.get_sample_value
    assert value("dssync_sync_phase_duration_seconds_sum", {"phase": "build"}) == 1.0
    assert value("dssync_sync_phase_duration_seconds_count", {"phase": "build"}) == 4
    assert value("dssync_sync_rounds_total", {"result": "committed"}) == 6
    assert value("dssync_round", {"local_rank": "1"}) == 7


@pytest.mark.parametrize(
    "delta",
    [
        Delta(raised=(Amount("my_own_total", {}, 1),)),
        Delta(raised=(Amount("dssync_round", {"local_rank": "1"}, 1),)),
        Delta(shown=(Amount("dssync_sync_bytes_total", {}, 1),)),
        Delta(observed=(Observed("dssync_sync_bytes_total", {}, (1,)),)),
        Delta(raised=(Amount("dssync_sync_bytes_total", {}, -1),)),
        Delta(raised=(Amount("dssync_sync_rounds_total", {}, 1),)),
        Delta(raised=(Amount("dssync_sync_rounds_total", {"result": "a", "round": "7"}, 1),)),
        Delta(raised=(Amount("dssync_sync_rounds_total", {"result": "odd"}, 1),)),
        Delta(shown=(Amount("dssync_round", {"local_rank": "abc"}, 1),)),
    ],
)
def test_what_is_not_in_the_table_is_refused(delta: Delta) -> None:
    with pytest.raises(ProtocolError):
        Metrics().apply(delta)


def test_what_is_refused_once_is_refused_again() -> None:
    metrics = Metrics()
    delta = Delta(shown=(Amount("dssync_sync_bytes_total", {}, 1),))

    for _ in range(2):
        with pytest.raises(ProtocolError, match="no Gauge"):
            metrics.apply(delta)


def test_a_delta_with_a_fault_changes_nothing() -> None:
    metrics = Metrics()
    good, bad = Amount("dssync_sync_bytes_total", {}, 5), Amount("unknown", {}, 1)

    with pytest.raises(ProtocolError):
        metrics.apply(Delta(raised=(good, bad)))

    assert metrics.registry.get_sample_value("dssync_sync_bytes_total") == 0


def test_the_launchers_own_events_are_counted() -> None:
    metrics = Metrics()

    metrics.membership_changed("evict")
    metrics.worker_restarted()
    metrics.reformed("exit", 0.04)

    value = metrics.registry.get_sample_value
    assert value("dssync_membership_changes_total", {"kind": "evict"}) == 1
    assert value("dssync_worker_restarts_total") == 1
    labels = {"cause": "exit", "le": "0.05"}
    assert value("dssync_reform_duration_seconds_bucket", labels) == 1


def test_buckets_double_from_half_a_millisecond_to_a_minute() -> None:
    assert (ROUND_BUCKETS[0], len(ROUND_BUCKETS)) == (0.0005, 18)
    assert ROUND_BUCKETS[-1] == pytest.approx(65.536)
    assert (EVENT_BUCKETS[0], EVENT_BUCKETS[-1]) == (0.01, 60.0)


def fill(metrics: Metrics) -> None:
    for series in SERIES:
        labels = {name: min(values or {"0"}) for name, values in series.labels.items()}
        method = {"histogram": metrics.observe, "counter": metrics.increment, "gauge": metrics.set}
        method[series.kind](series.name, 1.0, **labels)


@pytest.mark.skipif(
    shutil.which("promtool") is None and os.environ.get("DSSYNC_REQUIRE_PACKAGES") != "1",
    reason="promtool is not installed: Debian's package prometheus",
)
def test_promtool_accepts_the_exposition() -> None:
    metrics = Metrics()
    fill(metrics)

    check = subprocess.run(
        ["promtool", "check", "metrics"],
        input=generate_latest(metrics.registry),
        capture_output=True,
        check=False,
    )

    assert (check.returncode, check.stdout, check.stderr) == (0, b"", b"")


@pytest.fixture
async def endpoint() -> AsyncIterator[MetricsEndpoint]:
    metrics = Metrics()
    metrics.worker_restarted()
    endpoint = await MetricsEndpoint.open(metrics.registry, "127.0.0.1", 0)
    yield endpoint
    await endpoint.close()


async def get(port: int, request: str) -> tuple[str, str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request.encode() + b"\r\n\r\n")
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return head, body


async def test_the_endpoint_serves_the_registry(endpoint: MetricsEndpoint) -> None:
    head, body = await get(endpoint.port, "GET /metrics HTTP/1.1\r\nHost: pod")

    assert head.startswith("HTTP/1.1 200 OK")
    assert "Content-Type: text/plain; version=" in head
    assert f"Content-Length: {len(body)}" in head
    assert "\ndssync_worker_restarts_total 1.0\n" in body


async def test_a_scraper_that_asks_for_it_gets_openmetrics(endpoint: MetricsEndpoint) -> None:
    accept = "Accept: application/openmetrics-text; version=1.0.0"

    head, body = await get(endpoint.port, f"GET /metrics HTTP/1.1\r\n{accept}")

    assert "application/openmetrics-text" in head
    assert body.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET /healthz HTTP/1.1", "200 OK"),
        ("GET /metrics?x=1 HTTP/1.0", "200 OK"),
        ("GET /secret HTTP/1.1", "404 Not Found"),
        ("POST /metrics HTTP/1.1", "405 Method Not Allowed"),
    ],
)
async def test_other_requests(endpoint: MetricsEndpoint, request_line: str, status: str) -> None:
    head, _ = await get(endpoint.port, request_line)

    assert head.startswith(f"HTTP/1.1 {status}\r\n")


async def test_a_request_that_grows_too_long_is_cut_off_quietly(
    endpoint: MetricsEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    started = asyncio.get_running_loop().time()
    reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.port)

    writer.write(b"GET /" + b"x" * 70_000)

    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    assert asyncio.get_running_loop().time() - started < 4.0  # not the time-out, 5 s
    assert caplog.records == []
    writer.close()


async def test_a_port_in_use_is_said_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(UsageError) as caught:
            await MetricsEndpoint.open(Metrics().registry, "127.0.0.1", port)

    assert f"127.0.0.1 port {port}" in str(caught.value)
    assert "--metrics-port" in str(caught.value)
