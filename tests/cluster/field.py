"""A real cluster with the chart installed, and what a test says and asks there."""

import contextlib
import json
import secrets
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from dssync import contract
from ground.build import GroundError, binary

Manifest = dict[str, Any]
Process = tuple[int, str]
"""Pid and start time, which together no other process of a container ever has."""

ROOT: Final = Path(__file__).parents[2]
DIGITS: Final = ROOT / "examples" / "digits" / "job.yaml"
IMAGE: Final = "dssync-examples:e2e"
OPERATOR_IMAGE: Final = "dssync-operator:e2e"
CONTAINERD: Final = "containerd://"
PATIENCE_SECONDS: Final = 240.0
_LIST_PROCESSES: Final = """
import glob
for path in glob.glob("/proc/[0-9]*/stat"):
    try:
        words = open(path).read()
    except OSError:
        continue
    rest = words.rpartition(")")[2].split()
    print(words.split()[0], rest[1], rest[19])
"""


@dataclass(frozen=True)
class Kubectl:
    """kubectl in one context, never in another by accident."""

    kubeconfig: Path
    context: str

    def __call__(
        self, *arguments: object, stdin: str | None = None, seconds: float = PATIENCE_SECONDS
    ) -> str:
        """Run it and return what it printed.

        Raises:
            GroundError: It failed.
        """
        command = [str(binary("kubectl")), *self.flags, *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        if done.returncode != 0:
            raise GroundError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    @property
    def flags(self) -> tuple[str, ...]:
        """What names the cluster; helm takes the first, too."""
        return f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"

    def get(self, *what: str) -> Manifest:
        """Read objects."""
        found: Manifest = json.loads(self("get", *what, "--output=json"))
        return found


@dataclass
class Field:
    """A namespace of the cluster; ``mounts`` is where nodes keep torch, if images have none."""

    kubectl: Kubectl
    mounts: str
    on_node: Callable[..., str] | None = None
    """Runs a command on a node, where nodes are containers of this machine."""
    namespace: str = field(default_factory=lambda: f"e2e-{secrets.token_hex(3)}")

    def __post_init__(self) -> None:
        """Make the namespace."""
        self.kubectl("create", "namespace", self.namespace)

    def run(self, *arguments: object, stdin: str | None = None) -> str:
        """Run kubectl in this namespace."""
        return self.kubectl(f"--namespace={self.namespace}", *arguments, stdin=stdin)

    def close(self) -> None:
        """Delete the namespace with everything in it."""
        self.kubectl("delete", "namespace", self.namespace, "--wait=false")

    # --- jobs -----------------------------------------------------------------------------------

    def digits(self, *arguments: str, **spec: Any) -> Manifest:
        """The example's job for this cluster; each pod asks for one (fake) GPU and uses gloo."""
        job: Manifest = yaml.safe_load(DIGITS.read_text())
        job["spec"] = {**job["spec"], **spec}
        job["spec"]["sync"] = {**job["spec"]["sync"], "backend": "gloo"}
        pod = job["spec"]["template"]["spec"]
        (worker,) = pod["containers"]
        worker["image"], worker["imagePullPolicy"] = IMAGE, "IfNotPresent"
        worker["resources"] = {"limits": {"nvidia.com/gpu": 1}}
        worker["args"] += arguments
        if self.mounts:
            mount_torch(job, self.mounts)
        return job

    def mount(self, job: Manifest, path: str) -> None:
        """Let a job's workers see a folder of their nodes under its own path."""
        pod = job["spec"]["template"]["spec"]
        volumes = pod.setdefault("volumes", [])
        volumes.append({"name": "shared", "hostPath": {"path": path, "type": "Directory"}})
        mounts = pod["containers"][0].setdefault("volumeMounts", [])
        mounts.append({"name": "shared", "mountPath": path})

    def apply(self, job: Manifest) -> None:
        """Apply a job."""
        self.run("apply", "--filename=-", stdin=json.dumps(job))

    def patch(self, spec: Manifest, name: str = "digits") -> None:
        """Merge something into a job's spec."""
        self.run("patch", f"dsj/{name}", "--type=merge", f"--patch={json.dumps({'spec': spec})}")

    def wait(self, condition: str, name: str = "digits", seconds: float = PATIENCE_SECONDS) -> None:
        """Wait for a condition of a job; a failure shows what the job says."""
        try:
            self.run("wait", f"--for=condition={condition}", f"dsj/{name}", f"--timeout={seconds}s")
        except GroundError as error:
            raise AssertionError(f"{error}\n{json.dumps(self.status(name), indent=1)}") from error

    def job(self, name: str = "digits") -> Manifest:
        """Read a job."""
        return self.kubectl.get(f"--namespace={self.namespace}", "dsj", name)

    def status(self, name: str = "digits") -> Manifest:
        """Status of a job."""
        return self.job(name).get("status", {})

    def until(self, holds: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
        """Ask until something is true; return it.

        Raises:
            AssertionError: It did not become true in time.
        """
        give_up = time.monotonic() + seconds
        while not (found := holds()):
            if time.monotonic() > give_up:
                raise AssertionError(f"not within {seconds:g} s: {what}; {self.status()}")
            time.sleep(0.2)
        return found

    def until_gone(self, gone: Callable[[], bool], seconds: float) -> None:
        """Ask until nothing is left of a job that was deleted."""
        give_up = time.monotonic() + seconds
        while not gone():
            assert time.monotonic() < give_up, f"something is left after {seconds:g} s"
            time.sleep(0.2)

    def lease(self) -> Manifest:
        """The Lease of the one job here; empty before the operator has made it."""
        found = self.kubectl.get(f"--namespace={self.namespace}", "leases")["items"]
        ours = [each for each in found if name_of(each).startswith("digits-")]
        return ours[0] if ours else {"metadata": {"annotations": {}}, "spec": {}}

    def recorded(self, key: str) -> Manifest:
        """A JSON object in the record that operator and launchers share."""
        said: Manifest = json.loads(self.lease()["metadata"]["annotations"].get(key, "{}"))
        return said

    def step(self) -> int:
        """How far the job is, as its coordinator wrote it last."""
        return int(self.recorded(contract.RECORD_PROGRESS).get(contract.PROGRESS_STEP, 0))

    def world_size(self) -> int:
        """Members of the current view."""
        return int(self.recorded(contract.RECORD_VIEW).get("workers", 0))

    def term(self) -> int:
        """Term of the current view."""
        return int(self.recorded(contract.RECORD_VIEW).get("term", 0))

    def training(self, workers: int) -> list[Manifest]:
        """Wait until so many workers are in the view, and return their pods."""
        self.until(lambda: self.world_size() == workers, f"a view of {workers} workers")
        return self.live()

    # --- pods -----------------------------------------------------------------------------------

    def pods(self) -> list[Manifest]:
        """All pods of jobs, by name."""
        label = "--selector=dssync.io/job-name"
        found = self.kubectl.get(f"--namespace={self.namespace}", "pods", label)["items"]
        return sorted(found, key=lambda pod: str(pod["metadata"]["name"]))

    def live(self) -> list[Manifest]:
        """Pods that run and are not being deleted."""
        return [
            pod
            for pod in self.pods()
            if pod["status"]["phase"] == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    def coordinator(self) -> str:
        """Uid of the coordinator's pod."""
        return str(self.lease()["spec"].get("holderIdentity", ""))

    def processes(self, pod: Manifest) -> set[Process]:
        """Launcher, fork-server and workers of a pod."""
        return {(pid, started) for pid, parent, started in self._listed(pod) if parent or pid == 1}

    def workers(self, pod: Manifest) -> set[Process]:
        """Training processes of a pod: children of the launcher's child, the fork-server."""
        listed = self._listed(pod)
        servers = {pid for pid, parent, _ in listed if parent == 1}
        return {(pid, started) for pid, parent, started in listed if parent in servers}

    def _listed(self, pod: Manifest) -> list[tuple[int, int, str]]:
        """Pid, parent and start time of all processes of a pod's worker container.

        What runs there on our behalf has parent 0, as the launcher has.
        """
        exec_ = ("exec", name_of(pod), "--container=worker", "--")
        lines = self.run(*exec_, "python", "-c", _LIST_PROCESSES).splitlines()
        return [(int(pid), int(parent), start) for pid, parent, start in map(str.split, lines)]

    def printed_at(self, pod: Manifest, event: str) -> float:
        """When a pod's launcher has first printed an event, in seconds since 1970."""
        lines = self.run("logs", name_of(pod), "--container=worker", "--timestamps").splitlines()
        return next(seconds_of(line.split()[0]) for line in lines if f" dssync {event} " in line)

    def metric(self, pod: Manifest, name: str) -> float:
        """Sum of a series of a pod's launcher; 0 while it does not answer."""
        port = pod["spec"]["containers"][0]["ports"][-1]["containerPort"]
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name_of(pod)}:{port}/proxy/metrics"
        try:
            said = self.kubectl("get", f"--raw={path}")
        except GroundError:
            return 0.0
        lines = [line for line in said.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def rounds(self, pod: Manifest) -> float:
        """Rounds that a pod's workers have committed."""
        return self.metric(pod, "dssync_sync_rounds_total")

    def kill(self, pod: Manifest, pid: int) -> None:
        """Kill a process of a pod's worker container at once."""
        script = f"import os; os.kill({pid}, 9)"
        self.run("exec", name_of(pod), "--container=worker", "--", "python", "-c", script)

    def kill_from_node(self, pod: Manifest, pid: int) -> None:
        """Kill a process of a pod's worker container without asking the API server."""
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix(CONTAINERD)
        inside = ("python", "-c", f"import os; os.kill({pid}, 9)")
        tasks = ("ctr", "--namespace=k8s.io", "tasks", "exec", "--exec-id=kill", container)
        assert self.on_node is not None
        self.on_node(pod["spec"]["nodeName"], *tasks, *inside)

    def events(self) -> str:
        """Events of the namespace as text."""
        return self.run("get", "events")

    def crash(self, pod: Manifest) -> None:
        """Kill a pod's launcher at once; only its node can, for it is PID 1 in the pod."""
        if self.on_node is None:
            pytest.skip("nodes of this cluster cannot be entered")
        container = pod["status"]["containerStatuses"][0]["containerID"].removeprefix(CONTAINERD)
        kill = ("ctr", "--namespace=k8s.io", "tasks", "kill", "--signal=SIGKILL", container)
        self.on_node(pod["spec"]["nodeName"], *kill)

    def replacement(self, pods: list[Manifest]) -> Manifest:
        """Wait for a pod that runs and is none of these."""
        known = {uid_of(pod) for pod in pods}

        def new() -> list[Manifest]:
            return [pod for pod in self.live() if uid_of(pod) not in known]

        (found, *_) = self.until(new, "a new pod that runs")
        return found

    def contributes(self, pod: Manifest) -> None:
        """Wait until a pod's worker has committed rounds."""
        self.until(lambda: self.rounds(pod) > 1, f"rounds of {name_of(pod)}")

    @contextmanager
    def steady(self, survivors: list[Manifest]) -> Iterator[None]:
        """Fail if a process of these pods is another one afterwards, or the step went back."""
        before = {name_of(pod): self.processes(pod) for pod in survivors}
        steps, over = [self.step()], threading.Event()

        def watch() -> None:
            while not over.wait(1.0):
                with contextlib.suppress(GroundError):
                    steps.append(self.step())

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
            self.until(lambda: self.step() > steps[0], "progress")
        finally:
            over.set()
            watching.join()
        assert {name_of(pod): self.processes(pod) for pod in survivors} == before
        assert steps == sorted(steps)

    def said(self) -> str:
        """What the pods that run have written."""
        return "".join(self.run("logs", name_of(pod), "--container=worker") for pod in self.live())

    def collect(self, folder: Path) -> None:
        """Write what a failure needs to be understood."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("dsj", "pods", "leases", "events"):
            (folder / f"{kind}.yaml").write_text(self.run("get", kind, "--output=yaml"))
        for pod in self.pods():
            try:
                said = self.run("logs", name_of(pod), "--all-containers")
            except GroundError as error:
                said = str(error)
            (folder / f"{name_of(pod)}.log").write_text(said)


def mount_torch(job: Manifest, path: str) -> None:
    """Let a job's workers take torch from a folder of their nodes."""
    pod = job["spec"]["template"]["spec"]
    (worker,) = pod["containers"]
    pod["volumes"] = [{"name": "site", "hostPath": {"path": path, "type": "Directory"}}]
    worker["volumeMounts"] = [{"name": "site", "mountPath": path, "readOnly": True}]
    worker["env"] = [{"name": "PYTHONPATH", "value": path}]


def name_of(thing: Manifest) -> str:
    """Name of an object."""
    return str(thing["metadata"]["name"])


def uid_of(thing: Manifest) -> str:
    """Uid of an object."""
    return str(thing["metadata"]["uid"])


def seconds_of(stamp: str) -> float:
    """Seconds since 1970 of a time as the API writes it."""
    return datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()
