"""Pods whose workers tell each round to the test, over a socket in a folder that all nodes share.

Their script is that of ``benchmarks.reform``: before a round each worker sets its parameters to a
number of its own, so that the mean of each group is known and every result is checked.
"""

import json
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks.reform.records import PERIOD, History, Round
from benchmarks.reform.world import TRAINER
from cluster.field import Field, Manifest, uid_of
from dssync import contract
from ground.kind.cluster import SHARED, Cluster

PODS: Final = 4
WORKERS_PER_POD: Final = 2
WORLD: Final = PODS * WORKERS_PER_POD
PAYLOAD_BYTES: Final = 1 << 20
PATIENCE_SECONDS: Final = 240.0


@dataclass
class Trainers:
    """A job of pods that tell, and what they have told."""

    field: Field
    history: History = field(default_factory=History)
    lost: set[str] = field(default_factory=set)
    """Members that are known to be gone."""
    told: threading.Condition = field(default_factory=threading.Condition)
    """Held while the history changes."""

    @property
    def members(self) -> list[str]:
        """Members that said they are ready and are not gone."""
        gone = self.lost.union(self.history.left)
        return sorted(member for member in self.history.ready if member not in gone)

    def of_pod(self, pod: Manifest) -> list[str]:
        """Present members of a pod."""
        slot = pod["metadata"]["labels"][contract.LABEL_SLOT]
        return [member for member in self.members if member.startswith(f"{slot}.")]

    def until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until something that a member tells makes it true.

        Raises:
            AssertionError: It did not within ``PATIENCE_SECONDS``.
        """
        with self.told:
            if not self.told.wait_for(holds, PATIENCE_SECONDS):
                raise AssertionError(f"waited in vain for {what}: {self.field.status()}")

    def until_quiet(self) -> None:
        """Wait until everybody has taken part in two periods without a retry."""
        self.until(self._quiet, "a quiet world")

    def _quiet(self) -> bool:
        members = self.members
        recent = [self.history.by_member.get(each, [])[-2 * PERIOD :] for each in members]
        return len(members) == WORLD and all(
            len(rounds) == 2 * PERIOD and all(r.world == WORLD and not r.attempts for r in rounds)
            for rounds in recent
        )

    def wrong(self) -> list[Round]:
        """Rounds with another result than the mean."""
        with self.told:
            return self.history.wrong()

    def groups(self, periods: int) -> dict[int, set[tuple[str, ...]]]:
        """Groups of the last rounds that all members have done, by round."""
        with self.told:
            last = min(self.history.latest[member].round for member in self.members)
            rounds = {n: self.history.rounds[n] for n in range(last - periods * PERIOD, last)}
            return {n: {r.members for r in each.values()} for n, each in rounds.items()}

    def kill(self, pod: Manifest) -> float:
        """Kill a pod's launcher, and its workers with it, and return when."""
        pid, members = launcher_pid(uid_of(pod)), self.of_pod(pod)
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        with self.told:
            self.lost.update(members)
        return killed

    def listen(self, server: socket.socket) -> None:
        """Take in what members tell until the socket is closed."""
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._hear, args=(connection,), daemon=True).start()

    def _hear(self, connection: socket.socket) -> None:
        with closing(connection), connection.makefile("rb") as lines:
            for line in lines:
                if line.endswith(b"\n"):  # the rest of a line whose teller died is dropped
                    with self.told:
                        self.history.add(json.loads(line))
                        self.told.notify_all()


def launcher_pid(pod_uid: str) -> int:
    """Pid on this machine of the process that is PID 1 in a pod's worker container."""
    told = f"{contract.ENV_POD_UID}={pod_uid}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        (spaces,) = [line.split() for line in status.splitlines() if line.startswith("NSpid:")]
        if told in environment and spaces[-1] == "1":
            return int(folder.name)
    raise AssertionError(f"no process of this machine is the launcher of pod {pod_uid}")


def manifest(field: Field, folder: str, **sync: Any) -> Manifest:
    """A job whose pods stand on both nodes alike; SIGKILL counts for nothing there."""
    ignored = {
        "name": "killed",
        "action": "Ignore",
        "onExitCodes": {"operator": "In", "values": [128 + signal.SIGKILL]},
    }
    job = field.digits(replicas=PODS, nprocPerNode=WORKERS_PER_POD)
    job["spec"]["failurePolicy"] = {"rules": [ignored]}
    job["spec"]["sync"] |= {"groupSize": 4, **sync}
    pod = job["spec"]["template"]["spec"]
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {contract.LABEL_JOB_NAME: job["metadata"]["name"]}},
    }
    pod["topologySpreadConstraints"] = [spread]
    worker = pod["containers"][0]
    worker["command"] = ["dssync", "run", f"{folder}/trainer.py"]
    worker["args"] = [f"{folder}/tell", str(PAYLOAD_BYTES)]
    field.mount(job, SHARED)
    return job


@contextmanager
def trainers(field: Field, **sync: Any) -> Iterator[Trainers]:
    """Run a job of such pods and wait until it is quiet."""
    folder = Cluster().shared / field.namespace
    folder.mkdir()
    shutil.copy(TRAINER, folder)
    found = Trainers(field)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "tell"))
        (folder / "tell").chmod(0o777)  # pods run as a user of their own
        server.listen()
        threading.Thread(target=found.listen, args=(server,), daemon=True).start()
        field.apply(manifest(field, f"{SHARED}/{field.namespace}", **sync))
        found.until_quiet()
        yield found
        server.shutdown(socket.SHUT_RDWR)
