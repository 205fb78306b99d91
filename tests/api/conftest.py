"""One control plane and one operator for all tests here, one namespace for each."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from ground import build
from ground.control_plane import ControlPlane
from ground.inprocess import lines_end
from ground.process import OperatorProcess
from ground.scene import Scene

HERE = Path(__file__).parent
CRD = HERE.parents[1] / "crds" / "dssyncjob.yaml"
TIMEOUT_SECONDS = 180.0
"""Longer than a test's own patience, whose message says what it waited for."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.api)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(TIMEOUT_SECONDS))


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """The control plane that the session's operator looks after."""
    with started(audit=True) as found:
        yield found


@pytest.fixture(scope="session")
def quiet_plane() -> Iterator[ControlPlane]:
    """Another control plane, for tests that bring their own operators or break things."""
    with started() as found:
        yield found


@contextmanager
def started(**options: Any) -> Iterator[ControlPlane]:
    """A control plane that knows DSSyncJobs; options are its attributes."""
    missing = build.missing()
    if missing and os.environ.get("DSSYNC_REQUIRE_GROUND") != "1":
        pytest.skip(f"no {', '.join(missing)}: run `make ground` to test against a real API server")
    found = ControlPlane(**options)
    try:
        found.start()
        found.define(CRD)
        yield found
    finally:
        found.stop()


@pytest_asyncio.fixture
async def quiet_lines() -> AsyncIterator[None]:
    """Keep a test's event loop until the lines that were opened in it have ended."""
    yield
    await lines_end()


@pytest.fixture
def empty_scene(plane: ControlPlane) -> Scene:
    """A namespace that no operator needs to look at."""
    return Scene(plane)


@pytest.fixture(scope="session")
def operator(
    plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OperatorProcess]:
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    # Nobody starts it again, as a Deployment would, when a crowded machine keeps it from renewing.
    settings = {"log_level": "DEBUG", "log_format": "plain", "lease_seconds": 60}
    with OperatorProcess(plane.kubeconfig, log, **settings) as running:
        yield running


@pytest.fixture
def scene(plane: ControlPlane, operator: OperatorProcess) -> Scene:
    """A namespace that the operator of the session looks after."""
    assert operator.process.poll() is None, operator.log.read_text()[-4000:]
    return Scene(plane)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Show the end of the operator's log beside a failure."""
    report = yield
    process = getattr(item, "funcargs", {}).get("operator")
    if report.failed and isinstance(process, OperatorProcess):
        report.sections.append(("operator's log", process.log.read_text()[-6000:]))
    return report
