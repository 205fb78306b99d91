"""What importing the operator costs, what it must not need, and what it says when all is out."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ground.process import OperatorProcess

PROBE = """
import re, sys, time
before = time.process_time()
import dssync_operator.__main__
spent = time.process_time() - before
# Not ru_maxrss, which keeps the size that the parent had when it forked.
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(spent, peak, "torch" in sys.modules)
"""


def test_importing_the_operator_is_light_and_needs_no_torch() -> None:
    # CPU time, and the least of a few runs: the rest is what other processes of this machine cost.
    runs = (probe() for _ in range(5))
    seconds, kilobytes, torch = next((run for run in runs if run[0] < 1.5), probe())

    assert not torch
    assert kilobytes < 100 * 1024
    assert seconds < 1.5


def probe() -> tuple[float, int, bool]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, text=True, check=True, timeout=60
    )
    seconds, kilobytes, torch = done.stdout.split()
    return float(seconds), int(kilobytes), torch == "True"


def test_operator_runs_where_torch_cannot_be_imported() -> None:
    blocked = "import sys; sys.modules['torch'] = None; import dssync_operator.__main__"

    done = subprocess.run([sys.executable, "-c", blocked], capture_output=True, timeout=60)

    assert done.returncode == 0, done.stderr


JOB = json.dumps({"metadata": {"namespace": "ns", "generateName": "trial-"}})


@pytest.mark.parametrize(
    "command",
    [("selfcheck", "http://127.0.0.1:1/readyz", "[]"), ("trial", JOB, "5")],
    ids=["selfcheck", "trial"],
)
@pytest.mark.parametrize("credentials", [True, False], ids=["server out of reach", "nothing"])
def test_helm_test_says_in_a_line_why_it_cannot_ask(
    command: tuple[str, ...], credentials: bool, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    if credentials:
        config.write_text(KUBECONFIG)
    module, *arguments = command

    done = subprocess.run(
        [sys.executable, "-m", f"dssync_operator.{module}", *arguments],
        env={**os.environ, "KUBECONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert ("no answer from http" if credentials else "no usable credentials") in done.stdout
    assert "Traceback" not in done.stderr


def test_operator_that_reaches_no_server_is_alive_and_not_ready(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(KUBECONFIG)

    with OperatorProcess(config, tmp_path / "log") as operator:
        give_up = time.monotonic() + 60
        while "no answer from" not in operator.get("/readyz")[1]:
            assert time.monotonic() < give_up, operator.log.read_text()
        ready, healthy = operator.get("/readyz"), operator.get("/healthz")

    assert (ready[0], healthy[0]) == (503, 200)
    assert operator.log.read_text().count("cannot be read and written") == 1


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: me, user: {token: secret}}]
"""
