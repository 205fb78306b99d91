"""What is put back after a Docker daemon of the tests."""

import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from ground.kind.traces import Traces, added, emptied
from ground.rights import REQUIRED

BEFORE = """*filter
:INPUT ACCEPT [0:0]
COMMIT
"""
NOW = """*nat
:PREROUTING DROP [1:2]
:DOCKER - [0:0]
-A PREROUTING -j DOCKER
COMMIT
*filter
:INPUT ACCEPT [0:0]
:DOCKER - [0:0]
-A INPUT -j DOCKER
COMMIT
"""


def test_a_table_that_was_not_there_before_is_emptied_and_its_own_chains_go() -> None:
    assert emptied(NOW, BEFORE) == "*nat\n:PREROUTING ACCEPT [0:0]\nCOMMIT\n"


def test_nothing_new_leaves_nothing_to_do() -> None:
    assert emptied(BEFORE, BEFORE).strip() == ""


def test_rules_and_chains_that_were_not_there_before_are_found() -> None:
    assert added(NOW, BEFORE) == [
        ":DOCKER - [0:0]",
        "-A PREROUTING -j DOCKER",
        ":DOCKER - [0:0]",
        "-A INPUT -j DOCKER",
    ]
    assert added(NOW.replace("[0:0]", "[7:9]"), NOW) == []


@pytest.fixture
def traces(tmp_path: Path) -> Traces:
    """Traces of a daemon that has done nothing yet."""
    if os.getuid() != 0 and not REQUIRED:
        pytest.skip("the packet filter and mounts are for root alone")
    found = Traces(tmp_path / "daemon")
    found.folder.mkdir()
    found.remember()
    return found


def test_a_mount_that_is_left_is_found(traces: Traces) -> None:
    place = traces.folder / "place"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
    try:
        assert f"mount {place}" in traces.left()
    finally:
        subprocess.run(["umount", place], check=True)
    assert f"mount {place}" not in traces.left()


def test_a_process_that_is_left_is_found(traces: Traces) -> None:
    wait = "import sys; print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", wait, f"{traces.folder}/socket"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        process.stdout.readline()
        left = traces.left()
        process.stdin.close()
    ours = f"process {process.pid}:"
    assert any(line.startswith(ours) for line in left)
    assert not any(line.startswith(ours) for line in traces.left())


def test_a_bridge_that_is_left_is_found(traces: Traces) -> None:
    name = f"br-{secrets.token_hex(4)}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        assert f"bridge {name}" in traces.left()
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)
    assert f"bridge {name}" not in traces.left()
