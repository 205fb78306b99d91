"""A kind cluster of two nodes for the tests, on this machine.

The public node image is taken where it is there or can be pulled, else one is built from packages
(``images``). Its kubeconfig is a file of its own: whoever has a cluster already is not touched.
Nodes have fake GPUs and stand in different zones and racks.
"""

import json
import os
import shutil
import subprocess
import sysconfig
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from ground.build import GroundError, binary, kubernetes_version
from ground.kind import images
from ground.kind.daemon import Daemon

NAME: Final = "dssync"
SITE: Final = "/site"
"""Where nodes see this environment's packages; pods that train mount torch from there."""
SHARED: Final = "/shared"
"""Where nodes see one folder of this machine: storage that pods of all nodes share."""
GPUS: Final = 8
PUBLIC_IMAGE: Final = "kindest/node"
READY: Final = "180s"
PLACES: Final = {
    f"{NAME}-control-plane": {"topology.kubernetes.io/zone": "a", "example.com/rack": "r1"},
    f"{NAME}-worker": {"topology.kubernetes.io/zone": "b", "example.com/rack": "r2"},
}


def state_folder() -> Path:
    """Where images, logs and credentials of the cluster are kept between calls."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "dssync" / "kind"


@dataclass(frozen=True)
class Cluster:
    """The cluster; each verb may be said at any time."""

    folder: Path = field(default_factory=state_folder)

    @property
    def daemon(self) -> Daemon:
        """The Docker daemon that its nodes run on."""
        return Daemon(self.folder / "docker")

    @property
    def kubeconfig(self) -> Path:
        """Configuration of its administrator."""
        return self.folder / "kubeconfig"

    @property
    def shared(self) -> Path:
        """The folder that all nodes and pods may write to."""
        return self.folder / "shared"

    def up(self) -> None:
        """Bring it up unless it is.

        Raises:
            GroundError: A part is missing or did not come up; logs are in ``folder``.
        """
        self.shared.mkdir(parents=True, exist_ok=True)
        self.shared.chmod(0o1777)  # pods run as users of their own
        self.daemon.start()
        if not self.exists():
            config = self._config(*self._image())
            (self.folder / "config.yaml").write_text(yaml.safe_dump(config))
            self._delete()  # what is left of one that broke would be in the way
            self._create()
        self.furnish()

    def furnish(self) -> None:
        """Give the nodes their labels and fake GPUs, which a node that starts anew forgets."""
        for node, labels in PLACES.items():
            self._furnish(node, labels)

    def down(self) -> None:
        """Take it away, and the daemon if it is ours."""
        if self.daemon.is_ours or self.kubeconfig.exists():
            self._delete()
        self.kubeconfig.unlink(missing_ok=True)
        shutil.rmtree(self.shared, ignore_errors=True)
        self.daemon.stop()

    def exists(self) -> bool:
        """Whether its nodes are there and its API server answers."""
        if not self.kubeconfig.exists():
            return False
        try:
            self.kubectl("get", "--raw=/readyz", "--request-timeout=10s")
        except GroundError:
            return False
        return True

    def load(self, image: str) -> None:
        """Bring an image of the daemon to all nodes."""
        self._kind("load", "docker-image", image, f"--name={NAME}")

    def on_node(self, node: str, *command: str) -> str:
        """Run a command on a node and return what it printed."""
        return self.daemon.docker("exec", node, *command)

    def export_logs(self, folder: Path) -> None:
        """Collect the logs of all nodes."""
        self._kind("export", "logs", folder, f"--name={NAME}")

    def kubectl(self, *arguments: object, stdin: str | None = None) -> str:
        """Run kubectl as administrator and return what it printed.

        Raises:
            GroundError: It failed.
        """
        command = [binary("kubectl"), f"--kubeconfig={self.kubeconfig}", *map(str, arguments)]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise GroundError(f"kubectl {' '.join(map(str, arguments))}: {done.stderr.strip()}")
        return done.stdout

    def _delete(self) -> None:
        self._kind("delete", "cluster", f"--name={NAME}", f"--kubeconfig={self.kubeconfig}")

    def _create(self) -> None:
        flags = (f"--config={self.folder / 'config.yaml'}", f"--kubeconfig={self.kubeconfig}")
        try:
            self._kind("create", "cluster", f"--name={NAME}", "--retain", f"--wait={READY}", *flags)
        except GroundError:
            self.export_logs(self.folder / "logs")
            raise

    def _image(self) -> tuple[str, bool]:
        """The node image, and whether it is home-made."""
        public = f"{PUBLIC_IMAGE}:{kubernetes_version()}"
        if images.available(self.daemon, public):
            return public, False
        images.build_node(self.daemon, self.folder / "images")
        return images.node_image(), True

    def _config(self, image: str, home_made: bool) -> dict[str, Any]:
        site = {"hostPath": sysconfig.get_paths()["purelib"], "containerPath": SITE}
        shared = {"hostPath": str(self.shared), "containerPath": SHARED}
        mounts = [{**site, "readOnly": True}, shared]
        config: dict[str, Any] = {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {"ipFamily": "ipv4", "disableDefaultCNI": home_made},
        }
        if home_made:
            archives = {"hostPath": str(self.folder / "images"), "containerPath": "/kind/images"}
            mounts.append({**archives, "readOnly": True})
            config["kubeadmConfigPatches"] = [yaml.safe_dump(_KUBELET)]
        roles = ("control-plane", "worker")
        config["nodes"] = [{"role": r, "image": image, "extraMounts": mounts} for r in roles]
        return config

    def _furnish(self, node: str, labels: dict[str, str]) -> None:
        self.kubectl("label", "--overwrite", "node", node, *(f"{k}={v}" for k, v in labels.items()))
        taint = "node-role.kubernetes.io/control-plane"
        found = json.loads(self.kubectl("get", "node", node, "--output=json"))
        # One that was away may still have others, which Kubernetes takes off by itself.
        if taint in {each["key"] for each in found["spec"].get("taints", ())}:
            self.kubectl("taint", "node", node, f"{taint}-")
        counts = {"nvidia.com/gpu": str(GPUS)}
        patch = {"status": {"capacity": counts, "allocatable": counts}}
        self.kubectl(
            "patch", "node", node, "--subresource=status", "--type=merge", f"-p={json.dumps(patch)}"
        )

    def _kind(self, *arguments: object) -> None:
        log = self.folder / "kind.log"
        environment = {**os.environ, **self.daemon.environment}
        with log.open("ab") as output:
            done = subprocess.run(
                [binary("kind"), *map(str, arguments)],
                stdout=output,
                stderr=output,
                env=environment,
            )
        if done.returncode != 0:
            said = log.read_text()[-3000:]
            raise GroundError(f"kind {arguments[0]} ended with {done.returncode}:\n{said}")

    def wipe(self) -> None:
        """Take it away with everything that was kept: images as well."""
        self.down()
        shutil.rmtree(self.folder)


_KUBELET: Final = {
    "kind": "KubeletConfiguration",
    "cgroupDriver": "cgroupfs",
    "cgroupRoot": "",
    "failCgroupV1": False,
    "cgroupsPerQOS": False,
    # An empty list would be dropped on the way.
    "enforceNodeAllocatable": ["none"],
    "failSwapOn": False,
    # Docker's own name server would make CoreDNS find itself in a loop.
    "resolvConf": "/kind/resolv.conf",
}
"""What a home-made node needs: no systemd, perhaps cgroup v1, no room for accounting."""
