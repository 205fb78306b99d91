"""What one pod of a local job runs: command, environment and folder. Pure."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dssync import contract
from dssync.local.manifest import Manifest

_LOOPBACK: Final = "127.0.0.1"
_OWN_VARIABLES: Final = "DSSYNC_"


@dataclass(frozen=True)
class Run:
    """One run of a job on this machine.

    Attributes:
        uid: New for each run; keys the arbiter's record and marks the run's processes.
        folder: Private folder of the run, for record, token and verdicts.
        working_directory: Stands for the working directory of the image.
        environment: What pods inherit.
        node_name: Name of this machine.
    """

    uid: str
    folder: Path
    working_directory: Path
    environment: Mapping[str, str]
    node_name: str

    @property
    def record(self) -> Path:
        """Folder of the arbiter."""
        return self.folder / "arbiter"

    @property
    def token(self) -> Path:
        """File with the job's secret."""
        return self.folder / "token"


@dataclass(frozen=True)
class PodSpec:
    """One pod, ready to be started."""

    slot: int
    uid: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    working_directory: Path
    termination_log: Path


def pod_spec(manifest: Manifest, run: Run, slot: int, uid: str) -> PodSpec:
    """Return the pod of a slot.

    Variables of the contract win over those of the container, as on a cluster; those that this
    process itself was started with are not inherited. Ports are left to the system, because the
    pods share one address.

    Args:
        manifest: The job.
        run: This run of it.
        slot: Slot of the pod.
        uid: Uid of the pod; a replacement has a new one.
    """
    termination_log = run.folder / f"verdict-{uid}.json"
    inherited = {k: v for k, v in run.environment.items() if not k.startswith(_OWN_VARIABLES)}
    return PodSpec(
        slot=slot,
        uid=uid,
        command=manifest.container.command,
        environment={
            **inherited,
            "PATH": _own_programs_first(inherited.get("PATH", os.defpath)),
            **manifest.container.environment,
            **manifest.variables,
            **_shared(manifest, run),
            contract.ENV_SLOT: str(slot),
            contract.ENV_POD_UID: uid,
            contract.ENV_TERMINATION_LOG: str(termination_log),
        },
        working_directory=manifest.container.working_directory or run.working_directory,
        termination_log=termination_log,
    )


def _own_programs_first(path: str) -> str:
    """``dssync`` and ``python`` are to mean this installation, also where it is not activated."""
    return os.pathsep.join([str(Path(sys.executable).parent), path])


def _shared(manifest: Manifest, run: Run) -> Mapping[str, str]:
    return {
        contract.ENV_JOB_NAME: manifest.name,
        contract.ENV_JOB_NAMESPACE: manifest.namespace,
        contract.ENV_JOB_UID: run.uid,
        contract.ENV_POD_IP: _LOOPBACK,
        contract.ENV_NODE_NAME: run.node_name,
        contract.ENV_DESIRED: str(manifest.replicas),
        contract.ENV_MIN: str(manifest.min_replicas),
        contract.ENV_MAX: str(manifest.max_replicas),
        contract.ENV_ARBITER: f"file:{run.record}",
        contract.ENV_RENDEZVOUS_PORT: "0",
        contract.ENV_METRICS_PORT: "0",
        contract.ENV_TOKEN_FILE: str(run.token),
        contract.ENV_DRAIN_TIMEOUT_SECONDS: f"{manifest.grace_seconds:g}",
    }
