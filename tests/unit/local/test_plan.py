"""Pods of a local job: what each process is told, and what it does not inherit."""

import os
import sys
from pathlib import Path

from dssync import contract
from dssync.local import manifest
from dssync.local.plan import Run, pod_spec

JOB = """
apiVersion: dssync.io/v1alpha1
kind: DSSyncJob
metadata: {name: demo, namespace: team}
spec:
  replicas: 3
  template:
    spec:
      terminationGracePeriodSeconds: 20
      containers:
      - name: worker
        command: [dssync, run, train.py]
        env: [{name: LEARNING_RATE, value: "0.1"}, {name: DSSYNC_SLOT, value: "7"}]
"""


def run(**inherited: str) -> Run:
    return Run("job-1", Path("/run/x"), Path("/home/me"), inherited, "laptop")


def test_a_pod_is_told_who_it_is_and_where_the_others_are() -> None:
    pod = pod_spec(manifest.parse(JOB, "job.yaml"), run(), slot=2, uid="pod-9")

    told = {name: pod.environment[name] for name in pod.environment if name.startswith("DSSYNC_")}
    assert pod.command == ("dssync", "run", "train.py")
    assert pod.working_directory == Path("/home/me")
    assert told[contract.ENV_SLOT] == "2"
    assert told[contract.ENV_POD_UID] == "pod-9"
    assert told[contract.ENV_ARBITER] == "file:/run/x/arbiter"
    assert told[contract.ENV_TOKEN_FILE] == "/run/x/token"
    assert told[contract.ENV_TERMINATION_LOG] == "/run/x/verdict-pod-9.json"
    assert told[contract.ENV_DRAIN_TIMEOUT_SECONDS] == "20"
    assert [told[name] for name in (contract.ENV_MIN, contract.ENV_DESIRED, contract.ENV_MAX)] == [
        "3"
    ] * 3
    assert [told[contract.ENV_RENDEZVOUS_PORT], told[contract.ENV_METRICS_PORT]] == ["0", "0"]


def test_a_pod_inherits_the_environment_but_for_this_projects_variables() -> None:
    pod = pod_spec(
        manifest.parse(JOB, "job.yaml"),
        run(HOME="/home/me", PATH="/bin", DSSYNC_LINK_FD="3"),
        slot=0,
        uid="a",
    )

    assert pod.environment["HOME"] == "/home/me"
    assert pod.environment["LEARNING_RATE"] == "0.1"
    assert pod.environment["PATH"].split(os.pathsep) == [os.path.dirname(sys.executable), "/bin"]
    assert contract.ENV_LINK_FD not in pod.environment
