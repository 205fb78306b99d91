"""The chart's life beside a job that trains: upgrade, its own test, uninstall, install again."""

import ast
import json
from collections.abc import Iterator

import pytest

from cluster.field import Field, uid_of
from cluster.release import NAMESPACE, Release, operators


@pytest.fixture
def restored(release: Release) -> Iterator[Release]:
    """The release, which is installed again when the test is over."""
    yield release
    release.install()


def test_the_operators_image_lists_its_parts(field: Field) -> None:
    pod = operators(field.kubectl)[0]["metadata"]["name"]
    inside = (f"--namespace={NAMESPACE}", "exec", pod, "--")
    frozen = "import importlib.metadata as m; print({d.name: d.version for d in m.distributions()})"

    listed = json.loads(field.kubectl(*inside, "cat", "/opt/dssync/sbom.cdx.json"))
    there = ast.literal_eval(field.kubectl(*inside, "python", "-c", frozen))

    assert listed["metadata"]["component"]["name"] == "dssync"
    parts = {part["name"]: part["version"] for part in listed["components"]}
    assert parts == {name: version for name, version in there.items() if name != "dssync"}
    assert "kopf" in parts


def test_the_charts_own_test_passes(field: Field, release: Release) -> None:
    release.helm("test", release.name, "--timeout=60s")


def test_a_job_does_not_notice_upgrade_uninstall_and_install(
    field: Field, restored: Release
) -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 4}
    field.apply(field.digits("--epochs", "2000", replicas=2, elastic=elastic))
    pods = field.training(2)

    with field.steady(pods):
        restored.install(operator={"logLevel": "DEBUG"})
    with field.steady(pods):
        restored.uninstall()
    with field.steady(pods):
        restored.install()
        field.run("scale", "dsj/digits", "--replicas=3")
        field.training(3)

    assert {uid_of(pod) for pod in pods} <= {uid_of(pod) for pod in field.live()}
