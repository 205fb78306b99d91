"""A real Prometheus in the cluster, told what to scrape by the chart's own monitors.

A cluster with the Prometheus operator turns a ServiceMonitor or a PodMonitor into a part of
Prometheus' configuration; here ``scrape_configs`` does, for the fields that the chart uses.
Debian's Prometheus is built without the discovery of Kubernetes, so ``discovered`` gives it, in
a file, the targets and labels that the discovery would. What the monitors select and relabel is
done by Prometheus itself.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import yaml

from cluster.field import Field, Kubectl, Manifest, name_of

IMAGE: Final = "dssync-prometheus:e2e"
DOCKERFILE: Final = Path(__file__).parent / "prometheus" / "Dockerfile"
PORT: Final = 9090
NAME: Final = "prometheus"
META: Final = "__meta_kubernetes_"
POD_NAME: Final = f"{META}pod_name"
PORT_NAME: Final = {
    "ServiceMonitor": f"{META}endpoint_port_name",
    "PodMonitor": f"{META}pod_container_port_name",
}
LABEL: Final = {
    "ServiceMonitor": f"{META}service_label_",
    "PodMonitor": f"{META}pod_label_",
}
FOLDER: Final = "/data"


def scrape_configs(monitors: Iterable[Manifest]) -> list[Manifest]:
    """What monitors ask of Prometheus."""
    return [_scrape_config(each, end) for each in monitors for end in _endpoints(each)]


def _endpoints(monitor: Manifest) -> list[Manifest]:
    spec = monitor["spec"]
    found: list[Manifest] = spec.get("endpoints") or spec["podMetricsEndpoints"]
    return found


def _scrape_config(monitor: Manifest, endpoint: Manifest) -> Manifest:
    kind, wanted = monitor["kind"], monitor["spec"]["selector"]["matchLabels"]
    kept = {LABEL[kind] + _safe(label): value for label, value in wanted.items()}
    kept[PORT_NAME[kind]] = endpoint["port"]
    return {
        "job_name": f"{kind}/{name_of(monitor)}",
        "metrics_path": endpoint["path"],
        "file_sd_configs": [{"files": [f"{FOLDER}/{kind}.json"]}],
        "relabel_configs": [
            *({"source_labels": [k], "regex": v, "action": "keep"} for k, v in kept.items()),
            {"source_labels": [POD_NAME], "target_label": "pod"},
            *map(_snake_cased, endpoint.get("relabelings", ())),
        ],
    }


def _safe(label: str) -> str:
    return re.sub(r"\W", "_", label)


def _snake_cased(relabeling: Manifest) -> Manifest:
    return {re.sub(r"([A-Z])", r"_\1", key).lower(): value for key, value in relabeling.items()}


def discovered(kubectl: Kubectl, monitor: Manifest) -> list[Manifest]:
    """Targets that the discovery of Kubernetes would give for a monitor, before any selection."""
    own = {"matchNames": [monitor["metadata"]["namespace"]]}
    chosen = monitor["spec"].get("namespaceSelector", own)
    spaces = ["--all-namespaces"]
    if not chosen.get("any"):
        spaces = [f"--namespace={name}" for name in chosen["matchNames"]]
    find = _of_services if monitor["kind"] == "ServiceMonitor" else _of_pods
    return [target for space in spaces for target in find(kubectl, space)]


def _of_pods(kubectl: Kubectl, space: str) -> Iterator[Manifest]:
    for pod in kubectl.get("pods", space)["items"]:
        for container in pod["spec"]["containers"]:
            for port in container.get("ports", ()):
                if address := pod["status"].get("podIP"):
                    name = {PORT_NAME["PodMonitor"]: port.get("name", ""), POD_NAME: name_of(pod)}
                    labels = _labels(LABEL["PodMonitor"], pod) | name
                    yield {"targets": [f"{address}:{port['containerPort']}"], "labels": labels}


def _of_services(kubectl: Kubectl, space: str) -> Iterator[Manifest]:
    for service in kubectl.get("services", space)["items"]:
        where = f"--namespace={service['metadata']['namespace']}"
        found = kubectl.get("endpoints", name_of(service), where)
        for subset in found.get("subsets", ()):
            for address in subset.get("addresses", ()):
                for port in subset["ports"]:
                    pod = address.get("targetRef", {}).get("name", "")
                    name = {PORT_NAME["ServiceMonitor"]: port.get("name", ""), POD_NAME: pod}
                    labels = _labels(LABEL["ServiceMonitor"], service) | name
                    yield {"targets": [f"{address['ip']}:{port['port']}"], "labels": labels}


def _labels(prefix: str, thing: Manifest) -> dict[str, str]:
    return {prefix + _safe(k): v for k, v in thing["metadata"].get("labels", {}).items()}


def _manifests(config: str) -> list[Manifest]:
    flags = ["--config.file=/etc/e2e/prometheus.yml", f"--storage.tsdb.path={FOLDER}/series"]
    container = {
        "name": NAME,
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": flags,
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/-/ready", "port": PORT}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/e2e"},
            {"name": "data", "mountPath": FOLDER},
        ],
    }
    volumes = [{"name": "config", "configMap": {"name": NAME}}, {"name": "data", "emptyDir": {}}]
    common = {"apiVersion": "v1", "metadata": {"name": NAME}}
    return [
        {**common, "kind": "ConfigMap", "data": {"prometheus.yml": config}},
        {**common, "kind": "Pod", "spec": {"containers": [container], "volumes": volumes}},
    ]


class Prometheus:
    """One in a namespace of its field."""

    def __init__(self, field: Field, monitors: list[Manifest]) -> None:
        self._field = field
        self._monitors = monitors
        seconds = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        config = yaml.safe_dump({"global": seconds, "scrape_configs": scrape_configs(monitors)})
        made = {"apiVersion": "v1", "kind": "List", "items": _manifests(config)}
        field.run("apply", "--filename=-", stdin=json.dumps(made))
        field.run("wait", "--for=condition=Ready", f"pod/{NAME}", "--timeout=60s")

    def discover(self) -> None:
        """Tell it what is there now."""
        for monitor in self._monitors:
            targets = json.dumps(discovered(self._field.kubectl, monitor))
            path = f"{FOLDER}/{monitor['kind']}.json"
            # Under another name first: it reads as soon as a file of that name changes.
            script = f"cat > {path}.new && mv {path}.new {path}"
            self._field.run("exec", "--stdin", NAME, "--", "sh", "-c", script, stdin=targets)

    def ask(self, query: str) -> dict[str, float]:
        """Answer of a query now: value by pod."""
        path = f"/api/v1/namespaces/{self._field.namespace}/pods/{NAME}:{PORT}/proxy/api/v1/query"
        said = json.loads(self._field.kubectl("get", f"--raw={path}?query={quote(query)}"))
        found = said["data"]["result"]
        return {each["metric"].get("pod", ""): float(each["value"][1]) for each in found}

    def number(self, query: str) -> float:
        """Answer of a query that gives one number; 0 where nothing is known yet."""
        return sum(self.ask(query).values())
