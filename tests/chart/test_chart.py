"""The chart without a cluster: what it renders, what it refuses, what it says of itself."""

import importlib.util
import json
import tomllib
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chart.rendering import CHART, ROOT, helm, render, sets
from dssync.local.manifest import load
from dssync_operator.settings import read_settings

VERSIONS = ["1.31", "1.32", "1.33", "1.34"]
MONITORING = ["--api-versions", "monitoring.coreos.com/v1"]
CUSTOM = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
# Longer than a call's own patience, of which a test makes many.
pytestmark = pytest.mark.timeout(180)


VOLUME = {"name": "ca", "configMap": {"name": "ca"}}
MOUNT = {"name": "ca", "mountPath": "/etc/ca", "readOnly": True}
MATRIX = [
    sets(
        rbac__scope=scope,
        watchNamespaces=["a", "b"] if scope == "Namespaced" else [],
        replicas=replicas,
        topology__enabled=extras,
        networkPolicy__enabled=extras,
        networkPolicy__jobs=extras,
        metrics__serviceMonitor__enabled=extras,
        metrics__podMonitor__enabled=extras,
        metrics__rules__enabled=extras,
        metrics__dashboard__enabled=extras,
        crds__keep=extras,
        workerRbac="Namespace" if extras and scope == "Namespaced" else "PerJob",
        podLabels={"team": "a"} if extras else {},
        tolerations=[{"operator": "Exists"}] if extras else [],
        test__image="example/trainer" if extras else "",
        metrics__tls__secret="operator-tls" if extras else "",
        metrics__authentication=extras,
        extraEnv=[{"name": "X", "value": "y"}] if extras else [],
        extraVolumes=[VOLUME] if extras else [],
        extraVolumeMounts=[MOUNT] if extras else [],
    )
    for scope, replicas, extras in product(["Cluster", "Namespaced"], [1, 3], [False, True])
]


def test_strict_lint_finds_nothing() -> None:
    done = helm("lint", "--strict", str(CHART))

    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("version", VERSIONS)
def test_everything_rendered_fits_the_schemas_of_supported_versions(version: str) -> None:
    checked = 0
    for values in MATRIX:
        for manifest in render(*MONITORING, "--kube-version", f"v{version}.0", *values):
            if manifest["kind"] not in CUSTOM:
                kubernetes_validate.validate(manifest, version, strict=True)
                checked += 1
    assert checked > 50


REFUSED = [
    ({"replicas": 0}, "/replicas"),
    ({"image__pullPolicy": "Sometimes"}, "/image/pullPolicy"),
    ({"image__digest": "abc"}, "/image/digest"),
    ({"imge__tag": "x"}, "additional properties 'imge' not allowed"),
    ({"rbac__scope": "All"}, "/rbac/scope"),
    ({"operator__qps": 0}, "/operator/qps"),
    ({"operator__logLevel": "loud"}, "/operator/logLevel"),
    ({"metrics__port": 80}, "/metrics/port"),
    ({"topology__keys": []}, "/topology/keys"),
    ({"leaderElection__leaseSeconds": 1}, "/leaderElection/leaseSeconds"),
    ({"leaderElection__leaseSeconds": 3}, "renewSeconds 2.5 is more than 1.2"),
    ({"workerRbac": "All"}, "/workerRbac"),
    ({"workerRbac": "Namespace"}, "rbac.scope Namespaced"),
    ({"test__seconds": 0}, "/test/seconds"),
    ({"test__image": 7}, "/test/image"),
    ({"extraVolumes": [{"emptyDir": {}}]}, "/extraVolumes/0"),
    ({"extraVolumeMounts": [{"name": "ca"}]}, "/extraVolumeMounts/0"),
]


@pytest.mark.parametrize(("values", "place"), REFUSED)
def test_bad_value_is_refused_with_its_place(values: dict[str, object], place: str) -> None:
    done = helm("template", "test", str(CHART), *sets(**values))

    assert done.returncode != 0
    assert place in done.stderr


def test_kubernetes_below_the_floor_is_refused() -> None:
    done = helm("template", "test", str(CHART), "--kube-version", "v1.30.0")

    assert "1.31" in done.stderr


def test_monitors_appear_only_where_their_resources_exist() -> None:
    values = sets(metrics__serviceMonitor__enabled=True, metrics__rules__enabled=True)

    without = {part["kind"] for part in render(*values)}
    with_them = {part["kind"] for part in render(*MONITORING, *values)}

    assert without.isdisjoint(CUSTOM)
    assert {"ServiceMonitor", "PrometheusRule"} <= with_them


def test_resource_in_the_chart_is_the_one_of_the_repository() -> None:
    copy, original = CHART / "files" / "dssyncjob.yaml", ROOT / "crds" / "dssyncjob.yaml"

    assert copy.read_bytes() == original.read_bytes()
    (crd,) = [part for part in render() if part["kind"] == "CustomResourceDefinition"]
    assert crd["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
    assert crd == yaml.safe_load(original.read_text())


def test_every_rendered_setting_is_one_that_the_operator_reads() -> None:
    for values in MATRIX:
        (deployment,) = [p for p in render(*values) if p["kind"] == "Deployment"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        given = {entry["name"]: entry.get("value", "x") for entry in container["env"]}
        read_settings(given)


def test_viewers_and_so_editors_may_read_the_scale_of_a_job() -> None:
    roles = {
        part["metadata"]["name"]: part["rules"]
        for part in render()
        if part["kind"] == "ClusterRole" and "labels" in part["metadata"]
    }

    (rule,) = roles["test-dssync-view"]

    # kubectl scale reads it where --current-replicas or --resource-version is given.
    assert "dssyncjobs/scale" in rule["resources"]
    assert "get" in rule["verbs"]


def test_replica_that_cannot_lead_is_not_ready_and_yet_is_not_restarted_for_it() -> None:
    (deployment,) = [part for part in render() if part["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    asked = {kind: container[kind]["httpGet"]["path"] for kind in container if "Probe" in kind}

    assert asked == {
        "startupProbe": "/healthz",
        "livenessProbe": "/healthz",
        "readinessProbe": "/readyz",
    }


def test_certificate_is_mounted_served_probed_and_checked_by_who_scrapes() -> None:
    values = sets(metrics__tls__secret="tls", metrics__serviceMonitor__enabled=True)

    found = render(*MONITORING, *values)

    (deployment,) = [part for part in found if part["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (mount,) = container["volumeMounts"]
    (volume,) = pod["volumes"]
    folder = read_settings({e["name"]: e.get("value", "x") for e in container["env"]}).tls_folder
    assert (mount["name"], mount["mountPath"]) == (volume["name"], folder)
    assert volume["secret"]["secretName"] == "tls"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["scheme"] == "HTTPS"
    (monitor,) = [part for part in found if part["kind"] == "ServiceMonitor"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["scheme"] == "https"
    assert endpoint["tlsConfig"]["serverName"] == "test-dssync.ns.svc"
    assert endpoint["tlsConfig"]["ca"]["secret"] == {"name": "tls", "key": "ca.crt"}
    (ready,) = [part for part in found if part["metadata"]["name"].endswith("test-ready")]
    assert ready["spec"]["containers"][0]["args"][0].startswith("https://")


def test_metrics_ask_for_a_token_only_where_the_values_say_so() -> None:
    values = sets(metrics__authentication=True, metrics__serviceMonitor__enabled=True)

    def role_and_monitor(*values: str) -> tuple[set[str], Any]:
        found = render(*MONITORING, *values)
        roles = {part["metadata"]["name"] for part in found if part["kind"] == "ClusterRole"}
        (monitor,) = [part for part in found if part["kind"] == "ServiceMonitor"]
        return roles, monitor["spec"]["endpoints"][0]

    roles, endpoint = role_and_monitor(*values)
    bare_roles, bare_endpoint = role_and_monitor(*values, *sets(metrics__authentication=False))

    assert roles - bare_roles == {"test-dssync-metrics", "test-dssync-metrics-reader"}
    assert "bearerTokenFile" in endpoint
    assert "bearerTokenFile" not in bare_endpoint


@pytest.mark.parametrize(("workers", "extra"), [("Namespace", {"a", "b"}), ("None", set())])
def test_operator_makes_no_roles_where_the_chart_or_nobody_gives_rights_to_workers(
    workers: str, extra: set[str]
) -> None:
    scope = sets(rbac__scope="Namespaced", watchNamespaces=["a", "b"], workerRbac=workers)

    roles = [part for part in render(*scope) if part["kind"] == "Role"]

    ours = [role for role in roles if role["metadata"]["name"] == "test-dssync"]
    resources = {name for role in ours for rule in role["rules"] for name in rule["resources"]}
    assert resources.isdisjoint({"roles", "rolebindings", "serviceaccounts"})
    shared = [role for role in roles if role["metadata"]["name"] == "dssync-worker"]
    assert {role["metadata"]["namespace"] for role in shared} == extra


def test_further_volumes_are_mounted_into_the_operator() -> None:
    found = render(*sets(extraVolumes=[VOLUME], extraVolumeMounts=[MOUNT]))

    (deployment,) = [part for part in found if part["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["volumes"] == [VOLUME]
    assert pod["containers"][0]["volumeMounts"] == [MOUNT]


def test_trial_is_left_out_without_an_image_for_its_workers() -> None:
    def pods(*values: str) -> set[str]:
        return {part["metadata"]["name"] for part in render(*values) if part["kind"] == "Pod"}

    assert pods() == {"test-dssync-test-ready"}
    assert pods(*sets(test__image="x")) == {"test-dssync-test-ready", "test-dssync-test-job"}


@pytest.mark.parametrize(("namespaces", "place"), [([], "ns"), (["a", "b"], "a")])
def test_trial_runs_where_the_operator_looks(namespaces: list[str], place: str) -> None:
    values = sets(test__image="x", rbac__scope="Namespaced", watchNamespaces=namespaces)

    found = [part for part in render(*values) if "test-job" in part["metadata"]["name"]]

    assert len(found) == 5
    assert {part["metadata"]["namespace"] for part in found} == {place}


def test_one_replica_has_no_disruption_budget() -> None:
    kinds = [{p["kind"] for p in render(*sets(replicas=count))} for count in (1, 2)]

    assert "PodDisruptionBudget" not in kinds[0]
    assert "PodDisruptionBudget" in kinds[1]


def test_operator_pod_fits_the_restricted_level() -> None:
    (deployment,) = [part for part in render() if part["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def generator() -> ModuleType:
    """What `make chart` runs."""
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "charts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_readme_holds_the_values_as_they_are() -> None:
    assert (CHART / "README.md").read_text() == generator().readme()


def test_schema_describes_every_value_with_the_words_of_its_comment() -> None:
    assert (CHART / "values.schema.json").read_text() == generator().schema()

    found = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path, part in properties(found, ()):
        assert part.get("description"), path
        if path != ("global",):
            assert under(values, path) is not None, path
    assert set(found["properties"]) == {*values, "global"}


def properties(schema: dict[str, Any], path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    for name, part in schema.get("properties", {}).items():
        yield (*path, name), part
        yield from properties(part, (*path, name))


def under(values: Any, path: tuple[str, ...]) -> object:
    for name in path:
        values = values[name]
    return values


def about() -> dict[str, Any]:
    """The chart's own description, with what Artifact Hub reads of it."""
    found: dict[str, Any] = yaml.safe_load((CHART / "Chart.yaml").read_text())
    return found


def annotation(name: str) -> Any:
    return yaml.safe_load(about()["annotations"][f"artifacthub.io/{name}"])


def test_artifact_hub_is_told_of_the_images_that_are_installed() -> None:
    (deployment,) = [part for part in render() if part["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]

    assert container["image"] in [image["image"] for image in annotation("images")]


def test_artifact_hub_is_told_of_the_resource_with_examples_that_fit_it(tmp_path: Path) -> None:
    crd = yaml.safe_load((ROOT / "crds" / "dssyncjob.yaml").read_text())
    (told,) = annotation("crds")
    examples = annotation("crdsExamples")

    assert told["name"] == crd["metadata"]["name"]
    assert told["kind"] == crd["spec"]["names"]["kind"]
    assert [told["version"]] == [version["name"] for version in crd["spec"]["versions"]]
    for example in examples:
        place = tmp_path / "job.yaml"
        place.write_text(yaml.safe_dump(example))
        load(place)
    assert examples


@pytest.mark.parametrize(
    "name", ["category", "changes", "license", "links", "prerelease", "containsSecurityUpdates"]
)
def test_artifact_hub_is_told(name: str) -> None:
    assert annotation(name) is not None


def test_chart_and_package_have_the_same_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert about()["version"] == about()["appVersion"] == project["version"]
    assert annotation("license") == project["license"]
