"""Who may read /metrics where the operator asks the API server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ground.control_plane import ControlPlane
from ground.process import OperatorProcess

RBAC = "/apis/rbac.authorization.k8s.io/v1"


@pytest.fixture
def guarded(quiet_plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    settings = {"lease_name": "guarded", "metrics_authentication": "true", "log_format": "plain"}
    kubeconfig = quiet_plane.kubeconfig
    with OperatorProcess(kubeconfig, tmp_path / "operator.log", **settings) as running:
        quiet_plane.until(
            "/apis/coordination.k8s.io/v1/namespaces/default/leases",
            lambda found: any(each["metadata"]["name"] == "guarded" for each in found),
        )
        yield running


def ask(operator: OperatorProcess, path: str, authorization: str | None = None) -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    return operator.get(path, **headers)[0]


def test_metrics_are_read_by_those_whom_the_cluster_lets_and_by_nobody_else(
    quiet_plane: ControlPlane, guarded: OperatorProcess
) -> None:
    rule = {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    role = {"metadata": {"name": "scraper"}, "rules": [rule]}
    binding = {
        "metadata": {"name": "scraper"},
        "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": "scraper"},
        "subjects": [{"kind": "User", "name": "namespaced"}],
    }
    assert quiet_plane.request("POST", f"{RBAC}/clusterroles", role)[0] == 201
    assert quiet_plane.request("POST", f"{RBAC}/clusterrolebindings", binding)[0] == 201
    tokens = quiet_plane.tokens

    assert ask(guarded, "/metrics") == 401
    assert ask(guarded, "/metrics", "Basic abc") == 401
    assert ask(guarded, "/metrics", "Bearer of bad news") == 401
    assert ask(guarded, "/metrics", f"Bearer {tokens['outsider']}") == 403
    assert ask(guarded, "/metrics", f"Bearer {tokens['namespaced']}") == 200
    assert ask(guarded, "/healthz") == 200
    assert ask(guarded, "/readyz") == 200
