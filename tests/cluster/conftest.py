"""One cluster with the chart from this tree for all tests here, one namespace for each."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.builds import build_image
from cluster.field import IMAGE, OPERATOR_IMAGE, ROOT, Field, Kubectl
from cluster.release import Release
from cluster.timeline import REPORT as REPORT_FILE, Timeline, table
from ground.build import GroundError
from ground.kind.cluster import NAME, SITE, Cluster

HERE = Path(__file__).parent
LOGS = ROOT / "build" / "e2e-logs"
OURS = "DSSYNC_E2E_CONTEXT" not in os.environ


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            item.add_marker(pytest.mark.timeout(540))


@pytest.fixture(scope="session")
def kubectl() -> Iterator[Kubectl]:
    """The kind cluster of this machine, or the one that ``DSSYNC_E2E_CONTEXT`` names."""
    if not OURS:
        yield Kubectl(Path(os.environ["KUBECONFIG"]), os.environ["DSSYNC_E2E_CONTEXT"])
        return
    cluster = Cluster()
    if not cluster.exists():
        raise GroundError("no cluster: run `make kind-up`, or name one with DSSYNC_E2E_CONTEXT")
    _load_images(cluster)
    yield Kubectl(cluster.kubeconfig, f"kind-{NAME}")


def _load_images(cluster: Cluster) -> None:
    """Build the project's images from this tree and bring them to the nodes."""
    build_image(cluster, OPERATOR_IMAGE, ROOT / "operator" / "Dockerfile", ROOT)
    extras = "--build-arg=EXTRAS=cluster"
    build_image(cluster, IMAGE, ROOT / "launcher" / "Dockerfile", ROOT, extras)


@pytest.fixture(scope="session")
def release(kubectl: Kubectl) -> Iterator[Release]:
    """The chart of this tree, installed."""
    found = Release(kubectl)
    try:
        found.uninstall()  # what a run that was killed has left would keep its old image
        found.install()
        yield found
    finally:
        found.uninstall()
        if OURS:  # on somebody's own cluster the jobs of others would go with it
            kubectl("delete", "crd", "dssyncjobs.dssync.io", "--ignore-not-found")


@pytest.fixture
def field(kubectl: Kubectl, release: Release, request: pytest.FixtureRequest) -> Iterator[Field]:
    """A namespace of its own; what is in it is collected when the test fails."""
    found = Field(kubectl, SITE, Cluster().on_node) if OURS else Field(kubectl, "")
    yield found
    report = request.node.stash.get(REPORT, None)
    if report is None or report.failed:
        folder = LOGS / request.node.name
        shutil.rmtree(folder, ignore_errors=True)
        try:
            found.collect(folder)
        except GroundError as error:
            (folder / "collecting").write_text(str(error))
    found.close()


@pytest.fixture
def timeline(request: pytest.FixtureRequest) -> Iterator[Timeline]:
    """When what happened in this test; it goes into the report of the run."""
    found = Timeline(request.node.name)
    yield found
    if found.events or found.measured:
        found.write()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say when what happened, as far as this run or earlier ones of its report have noted it."""
    if REPORT_FILE.exists():
        terminalreporter.write_line(table(json.loads(REPORT_FILE.read_text())))


REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[pytest.TestReport]:
    """Keep the outcome of the test for the fixtures that tidy up after it."""
    report = yield
    if report.when == "call":
        item.stash[REPORT] = report
    return report
