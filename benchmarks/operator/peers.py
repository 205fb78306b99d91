"""The same load on others: Kubernetes' Job controller, the training-operator, plain kopf.

Those that ship with a limit on their requests are measured with it, on a load that is small
enough to end, and without it. Endpoints controllers are off everywhere: they would spend more
than any of the subjects.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.operator.cases import rest
from benchmarks.operator.field import (
    await_pods,
    control_plane,
    cpu_seconds,
    peak_mebibytes,
    submit,
    writes,
)
from ground.build import cache_folder
from ground.control_plane import ControlPlane

HERE: Final = Path(__file__).parent
MODULE: Final = "github.com/kubeflow/training-operator"
SHIPPED: Final = "training-operator, as shipped"
ELASTIC: Final = "training-operator, limits raised, elastic"
FIXED: Final = "training-operator, limits raised, master"
UNLIMITED: Final = ("--qps=5000", "--burst=5000", "--threads=10")
QUIET: Final = "garbage-collector-controller,namespace-controller"
CONTAINER: Final = {"image": "example/trainer", "command": ["dssync", "run", "t.py"]}
Manifest = dict[str, Any]
Submit = Callable[[ControlPlane, str, int], None]


@dataclass(frozen=True)
class Outcome:
    """What a peer needed for a load."""

    subject: str
    pods_per_second: float
    cpu_per_10000: float
    writes_per_pod: float
    mebibytes: float


def measure(jobs: int, pods: int, limited_pods: int) -> list[Outcome]:
    """Measure every peer that can be had here, but the one that is measured in turn with us."""
    raised = ("--kube-api-qps=5000", "--kube-api-burst=5000")
    few = max(1, limited_pods // pods)
    outcomes = [
        job_controller("Job controller, as shipped", (few, pods), ()),
        job_controller("Job controller, limits raised", (jobs, pods), raised),
        plain_kopf((jobs, pods)),
    ]
    shipped = training_operator(SHIPPED, (few, pods), (), submit_fixed)
    return [*outcomes, shipped] if shipped else outcomes


def job_controller(subject: str, load: tuple[int, int], flags: tuple[str, ...]) -> Outcome:
    """Indexed Jobs whose pods all run at once."""
    options = {"controllers": f"{QUIET},job-controller", "controller_flags": flags}
    with control_plane(**options) as plane:
        return _load(subject, plane, plane.pid("kube-controller-manager"), load, _submit_job)


def plain_kopf(load: tuple[int, int]) -> Outcome:
    """DSSyncJobs for the usual kind of kopf operator."""
    command = [sys.executable, "-m", "kopf", "run", "-A", "--standalone", str(HERE / "plain.py")]
    with control_plane() as plane, _running(plane, command) as pid:
        return _load("plain kopf", plane, pid, load, lambda *job: submit(*_named(*job)))


def training_operator(
    subject: str, load: tuple[int, int], flags: tuple[str, ...], submit_one: Submit
) -> Outcome | None:
    """PyTorchJobs; None where the peer can be neither found nor built."""
    program = training_operator_program()
    if program is None:
        print("peers: left out the training-operator, which needs Go to be built")
        return None
    crd = _module_folder() / "manifests" / "base" / "crds" / "kubeflow.org_pytorchjobs.yaml"
    with control_plane() as plane:
        plane.define(crd)
        with _running(plane, [str(program), *flags]) as pid:
            return _load(subject, plane, pid, load, submit_one)


def training_operator_program() -> Path | None:
    """The built peer, or None where it can be neither found nor built."""
    program = cache_folder() / "training-operator"
    if program.is_file():
        return program
    if shutil.which("go") is None:
        return None
    print("peers: building the training-operator, once")
    partial = program.with_suffix(f".{os.getpid()}")
    program.parent.mkdir(parents=True, exist_ok=True)
    build = ["go", "build", "-trimpath", "-o", str(partial), "."]
    subprocess.run(build, cwd=HERE / "peer", check=True)
    return partial.rename(program)


def _module_folder() -> Path:
    found = subprocess.run(
        ["go", "list", "-m", "-f", "{{.Dir}}", MODULE],
        cwd=HERE / "peer",
        check=True,
        capture_output=True,
        text=True,
    )
    return Path(found.stdout.strip())


def _load(
    subject: str, plane: ControlPlane, pid: int, load: tuple[int, int], submit_one: Submit
) -> Outcome:
    jobs, pods = load
    submit_one(plane, "warm", 1)
    await_pods(plane, 1)
    rest(plane)
    cpu, before, begin = cpu_seconds(pid), writes(plane), time.perf_counter()
    for number in range(jobs):
        submit_one(plane, f"job-{number}", pods)
    total = jobs * pods
    await_pods(plane, total + 1)
    seconds = time.perf_counter() - begin
    spent = cpu_seconds(pid) - cpu
    made = writes(plane) - before - jobs
    return Outcome(
        subject, total / seconds, spent * 10_000 / total, made / total, peak_mebibytes(pid)
    )


def _named(plane: ControlPlane, name: str, pods: int) -> tuple[ControlPlane, str, str, int, bool]:
    return plane, "default", name, pods, True


def _submit_job(plane: ControlPlane, name: str, pods: int) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "worker", **CONTAINER}]}}
    spec = {
        "parallelism": pods,
        "completions": pods,
        "completionMode": "Indexed",
        "template": template,
    }
    _post(
        plane, "/apis/batch/v1/namespaces/default/jobs", {"metadata": {"name": name}, "spec": spec}
    )


def submit_elastic(plane: ControlPlane, name: str, pods: int) -> None:
    """A PyTorchJob of which any number of workers may run."""
    elastic = {"rdzvBackend": "c10d", "minReplicas": 1, "maxReplicas": pods, "maxRestarts": 100}
    _submit_pytorchjob(plane, name, {"Worker": pods}, {"elasticPolicy": elastic})


def submit_fixed(plane: ControlPlane, name: str, pods: int) -> None:
    """A PyTorchJob whose workers all wait for its master."""
    workers = {"Worker": pods - 1} if pods > 1 else {}
    _submit_pytorchjob(plane, name, {"Master": 1, **workers}, {})


def _submit_pytorchjob(
    plane: ControlPlane, name: str, roles: dict[str, int], policy: Manifest
) -> None:
    template = {"spec": {"containers": [{"name": "pytorch", **CONTAINER}]}}
    replicas = {
        role: {"replicas": count, "restartPolicy": "OnFailure", "template": template}
        for role, count in roles.items()
    }
    manifest = {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": name},
        "spec": {"pytorchReplicaSpecs": replicas, **policy},
    }
    _post(plane, "/apis/kubeflow.org/v1/namespaces/default/pytorchjobs", manifest)


RAISED: Final[Mapping[str, Submit]] = {FIXED: submit_fixed, ELASTIC: submit_elastic}
"""What is measured with the limits raised, by its name."""


def _post(plane: ControlPlane, path: str, manifest: Manifest) -> None:
    code, said = plane.request("POST", path, manifest)
    if code != 201:
        raise RuntimeError(f"{path}: {code} {said}")


@contextmanager
def _running(plane: ControlPlane, command: list[str]) -> Iterator[int]:
    log = plane.folder / "peer.log"
    environment = {**os.environ, "KUBECONFIG": str(plane.kubeconfig)}
    with log.open("ab") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        yield process.pid
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} has ended: {log.read_text()[-2000:]}")
    finally:
        process.kill()
        process.wait()
