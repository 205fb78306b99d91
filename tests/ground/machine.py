"""Plays a node that really runs pods: each worker container becomes a process on this machine.

Operator and launcher meet on it without a cluster. A pod has an address of its own out of the
loopback range, the variables of its container with fields of the pod resolved, the token of its
Secret as a file, and the credentials of its own service account, so that it may do what a pod may
do and no more.
"""

import base64
import contextlib
import ipaddress
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dssync import contract
from ground.control_plane import Manifest
from ground.kubelet import MERGE, now, path_of
from ground.scene import Scene

POLL_SECONDS: Final = 0.1
NETWORKS: Final = ipaddress.IPv4Network("127.77.0.0/16")
_CLAIM_PORT: Final = 9399


@dataclass
class Running:
    """A pod and the process that is its main container."""

    pod: Manifest
    process: subprocess.Popen[bytes]
    folder: Path
    address: str
    asked_to_go: float | None = None

    @property
    def name(self) -> str:
        """Name of the pod."""
        return str(self.pod["metadata"]["name"])

    @property
    def log(self) -> str:
        """What the pod has written so far."""
        return (self.folder / "log").read_text()


class Addresses:
    """Loopback addresses that no other machine here gives out, in whichever process it is.

    Two test runs beside each other would else start launchers on one address, and those that come
    second cannot listen. A socket on the first address of a network claims the network.
    """

    def __init__(self) -> None:
        for network in NETWORKS.subnets(new_prefix=24):
            self._claim = socket.socket()
            self._left = network.hosts()
            try:
                self._claim.bind((self.next(), _CLAIM_PORT))
            except OSError:
                self._claim.close()
            else:
                return
        raise RuntimeError(f"every network in {NETWORKS} is claimed")

    def next(self) -> str:
        """Return an address that was not given out yet."""
        return str(next(self._left))

    def close(self) -> None:
        """Let others have the network."""
        self._claim.close()


class Machine:
    """A node for all pods of one namespace; a context manager.

    Args:
        scene: the namespace.
        working_directory: where commands run.
        node: the node's name.
    """

    def __init__(self, scene: Scene, working_directory: Path, node: str = "node-a") -> None:
        self._scene = scene
        self._working_directory = working_directory
        self._node = node
        self._folder = Path(tempfile.mkdtemp(prefix="dssync-machine-"))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._addresses = Addresses()
        self._lock = threading.Lock()
        self._pods: dict[str, Running] = {}

    def __enter__(self) -> "Machine":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        for running in self._pods.values():
            running.process.kill()  # its workers die with it
            running.process.wait()
        shutil.rmtree(self._folder)
        self._addresses.close()

    def running(self, pod: Manifest) -> Running:
        """The process of a pod that was started here, ended or not."""
        with self._lock:
            return self._pods[pod["metadata"]["uid"]]

    def logs(self) -> str:
        """Everything that pods wrote, for failing tests."""
        with self._lock:
            return "\n".join(f"--- {each.name}\n{each.log[-3000:]}" for each in self._pods.values())

    def _run(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            for pod in self._scene.pods():
                with self._lock:
                    self._look(pod)

    def _look(self, pod: Manifest) -> None:
        running = self._pods.get(pod["metadata"]["uid"])
        leaving = "deletionTimestamp" in pod["metadata"]
        if running is None:
            if leaving:
                self._scene.kubelet.remove(pod)
            elif not pod["spec"].get("nodeName"):
                self._start(pod)
            return
        if leaving and running.asked_to_go is None:
            running.asked_to_go = time.monotonic()
            running.process.send_signal(signal.SIGTERM)
        if running.process.poll() is None:
            grace = pod["metadata"].get("deletionGracePeriodSeconds", 0)
            if running.asked_to_go and time.monotonic() > running.asked_to_go + grace:
                running.process.kill()
        elif leaving:
            self._scene.kubelet.remove(pod)
        elif pod["status"]["phase"] == "Running":
            self._ended(running)

    def _start(self, pod: Manifest) -> None:
        uid = pod["metadata"]["uid"]
        folder = self._folder / uid
        folder.mkdir()
        address = self._addresses.next()
        self._scene.kubelet.bind(pod, self._node)
        container = next(
            each for each in pod["spec"]["containers"] if each["name"] == contract.WORKER_CONTAINER
        )
        environment = {**os.environ, **self._environment(pod, container, folder, address)}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [*container.get("command", []), *container.get("args", [])],
                env=environment,
                cwd=self._working_directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._pods[uid] = Running(pod, process, folder, address)
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": now()}]
        state = {"running": {"startedAt": now()}}
        self._report(pod, "Running", state, podIP=address, conditions=ready)

    def _environment(
        self, pod: Manifest, container: Manifest, folder: Path, address: str
    ) -> dict[str, str]:
        fields = {
            "metadata.uid": pod["metadata"]["uid"],
            "status.podIP": address,
            "spec.nodeName": self._node,
        }
        resolved = {
            entry["name"]: entry["value"]
            if "valueFrom" not in entry
            else fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            for entry in container["env"]
            if "value" in entry or "valueFrom" in entry
        }
        account = pod["spec"]["serviceAccountName"]
        plane = self._scene.plane
        kubeconfig = plane.kubeconfig_of_account(self._scene.namespace, account)
        here = {
            contract.ENV_TOKEN_FILE: str(self._token(pod, folder)),
            contract.ENV_TERMINATION_LOG: str(folder / "termination-log"),
        }
        settings = json.loads(resolved[contract.ENV_SETTINGS]) | here
        mended = {contract.ENV_SETTINGS: json.dumps(settings), "KUBECONFIG": str(kubeconfig)}
        return resolved | mended

    def _token(self, pod: Manifest, folder: Path) -> Path:
        """Put the job's token where a mounted Secret would have it."""
        names = [
            each["secret"]["secretName"] for each in pod["spec"]["volumes"] if "secret" in each
        ]
        path = f"{self._scene.path('secrets')}/{names[0]}"
        data = self._scene.plane.request("GET", path)[1]["data"]
        token = folder / "token"
        token.write_bytes(base64.b64decode(data["token"]))
        token.chmod(0o400)
        return token

    def _ended(self, running: Running) -> None:
        code = running.process.returncode
        said = running.folder / "termination-log"
        terminated = {
            "exitCode": code if code >= 0 else 128 - code,
            "reason": "Completed" if code == 0 else "Error",
            "message": said.read_text() if said.exists() else "",
            "finishedAt": now(),
        }
        phase = "Succeeded" if code == 0 else "Failed"
        self._report(running.pod, phase, {"terminated": terminated})

    def _report(self, pod: Manifest, phase: str, state: Manifest, **status: object) -> None:
        container = {
            "name": contract.WORKER_CONTAINER,
            "image": "none",
            "imageID": "",
            "ready": phase == "Running",
            "restartCount": 0,
            "state": state,
        }
        body = {"status": {"phase": phase, "containerStatuses": [container], **status}}
        with contextlib.suppress(KeyError):
            self._scene.plane.request("PATCH", f"{path_of(pod)}/status", body, content_type=MERGE)
