"""The chart of this tree as it is installed on the cluster."""

import json
import subprocess
from typing import Any, Final

from cluster.field import OPERATOR_IMAGE, ROOT, Kubectl, Manifest
from ground.build import GroundError, binary

NAMESPACE: Final = "dssync-system"
SECONDS: Final = 180


def operators(kubectl: Kubectl) -> list[Manifest]:
    """The operator's pods."""
    selector = "--selector=app.kubernetes.io/name=dssync-operator"
    found: list[Manifest] = kubectl.get(f"--namespace={NAMESPACE}", "pods", selector)["items"]
    return [pod for pod in found if pod["status"]["phase"] == "Running"]


class Release:
    """One release of the chart; every verb may be said at any time."""

    name: Final = "dssync"

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def install(self, **values: Any) -> None:
        """Install the chart, or bring what is installed to these values."""
        repository, _, tag = OPERATOR_IMAGE.partition(":")
        keys = ["topology.kubernetes.io/zone", "example.com/rack"]
        given = {
            "image": {"repository": repository, "tag": tag},
            "topology": {"enabled": True, "keys": keys},
            **values,
        }
        command = ("upgrade", "--install", self.name, "--create-namespace", "--wait", "--values=-")
        chart = ROOT / "charts" / "dssync"
        self.helm(*command, f"--timeout={SECONDS}s", chart, stdin=json.dumps(given))

    def uninstall(self) -> None:
        """Take it away; the resource and the jobs stay."""
        self.helm("uninstall", self.name, "--wait", "--ignore-not-found")

    def rendered(self, template: str, **values: Any) -> str:
        """A template of the chart as a cluster with the Prometheus operator would get it."""
        flags = (f"--show-only={template}", "--api-versions=monitoring.coreos.com/v1")
        chart = ROOT / "charts" / "dssync"
        given = json.dumps(values)
        return self.helm("template", self.name, *flags, "--values=-", chart, stdin=given)

    def helm(self, *arguments: object, stdin: str | None = None) -> str:
        """Run helm on this cluster and return what it printed.

        Raises:
            GroundError: It failed.
        """
        kubeconfig = self._kubectl.flags[0]
        where = (kubeconfig, f"--kube-context={self._kubectl.context}", f"--namespace={NAMESPACE}")
        command = [str(binary("helm")), *map(str, arguments), *where]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise GroundError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout
