"""``docs/quickstart.md`` is true: its commands are run, line by line, as they stand there."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from cluster.field import ROOT, Kubectl, mount_torch
from cluster.release import Release
from ground.build import cache_folder
from ground.kind import images
from ground.kind.cluster import SITE, Cluster

PAGE = ROOT / "docs" / "quickstart.md"
PARTS = (
    *("operator", "launcher", "charts", "crds", "examples"),
    *("pyproject.toml", "constraints.txt", "README.md", "LICENSE", ".dockerignore"),
)
AROUND = ("make kind-up", "make kind-status", "make setup", "make kind-down")
"""What has been run before this test, or is run after it."""


def commands() -> list[str]:
    """The commands of the page, in order."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.fixture
def no_release(release: Release) -> Iterator[None]:
    """A cluster without the chart; it is installed again when the test is over."""
    release.uninstall()
    yield
    release.install()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of this tree whose examples take torch from the nodes."""
    for part in PARTS:
        source = ROOT / part
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, tmp_path / part)
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    file = tmp_path / "launcher" / "Dockerfile"
    file.write_text(file.read_text().replace("EXTRAS=cluster,train,examples", "EXTRAS=cluster"))
    manifest = tmp_path / "examples" / "digits" / "job.yaml"
    job = yaml.safe_load(manifest.read_text())
    mount_torch(job, SITE)
    manifest.write_text(yaml.safe_dump(job))
    return tmp_path


def test_the_page_says_all_that_there_is_around() -> None:
    assert [line for line in commands() if line.startswith("make")] == list(AROUND)


def test_every_command_of_the_page_does_what_it_should(
    kubectl: Kubectl, no_release: None, tree: Path
) -> None:
    if "DSSYNC_E2E_CONTEXT" in os.environ:
        pytest.skip("the page speaks of a cluster of this machine")
    daemon = Cluster().daemon
    base = images.project_base(daemon)
    if base != images.PUBLIC_BASE:
        daemon.docker("tag", base, images.PUBLIC_BASE)
    script = [line for line in commands() if line not in AROUND]
    environment = {
        **os.environ,
        **daemon.environment,
        "DOCKER_BUILDKIT": "0",
        "PATH": f"{cache_folder()}:{os.environ['PATH']}",
    }

    try:
        done = subprocess.run(
            ["bash", "-euxo", "pipefail", "-c", "\n".join(script)],
            cwd=tree,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    finally:
        if base != images.PUBLIC_BASE:
            daemon.docker("rmi", images.PUBLIC_BASE)

    assert done.returncode == 0, done.stdout[-6000:]
    assert done.stdout.count("dssyncjob.dssync.io/digits condition met") == 2  # Running, Complete
