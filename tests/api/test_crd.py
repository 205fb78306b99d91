"""The resource itself: what the API server refuses, teaches and scales without any operator."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ground.bad_manifests import REFUSED
from ground.scene import Scene, make_job

CRD = Path(__file__).parents[2] / "crds" / "dssyncjob.yaml"


@pytest.mark.parametrize(
    ("spec", "sentence"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
def test_bad_manifest_is_refused_with_a_sentence(
    empty_scene: Scene, spec: dict[str, Any], sentence: str
) -> None:
    code, said = empty_scene.submit(make_job(**spec))

    assert code == 422
    assert sentence in said["message"]


@pytest.mark.parametrize("name", ["a" * 49, "1st", "with.dot"])
def test_name_that_pods_cannot_carry_is_refused(empty_scene: Scene, name: str) -> None:
    code, said = empty_scene.submit(make_job(name))

    assert code == 422
    assert "metadata.name must start with a letter" in said["message"]


FIXED = [
    ("managedBy", {"managedBy": "other.io/c"}, "managedBy cannot change"),
    ("rendezvous.mode", {"rendezvous": {"mode": "Static"}}, "rendezvous.mode cannot change"),
    ("successPolicy", {"successPolicy": "Any"}, "successPolicy cannot change"),
    ("nprocPerNode", {"nprocPerNode": 2}, "change them only while the job is suspended"),
    *(
        (f"sync.{field}", {"sync": {field: value}}, "change them only while the job is suspended")
        for field, value in (
            ("backend", "gloo"),
            ("groupSize", 2),
            ("every", 2),
            ("mode", "pool"),
            ("commit", "strict"),
            ("seed", 1),
            ("averageOptimizerState", True),
        )
    ),
    ("metrics", {"metrics": {"port": 1234}}, "change them only while the job is suspended"),
    (
        "health",
        {"health": {"hangTimeoutSeconds": 99}},
        "change them only while the job is suspended",
    ),
    (
        "checkpoint",
        {"checkpoint": {"path": "/data"}},
        "change them only while the job is suspended",
    ),
    ("topology", {"topology": {"keys": ["zone"]}}, "change them only while the job is suspended"),
    ("replicas", {"replicas": 3}, "can change only while it is suspended"),
]


@pytest.mark.parametrize(
    ("change", "sentence"), [case[1:] for case in FIXED], ids=[c[0] for c in FIXED]
)
def test_field_that_shapes_a_running_job_cannot_change(
    empty_scene: Scene, change: dict[str, Any], sentence: str
) -> None:
    empty_scene.create(make_job(replicas=2))

    code, said = empty_scene.patch("demo", change)

    assert code == 422
    assert sentence in said["message"]


@pytest.mark.parametrize("change", [{"path": "/other"}, None], ids=["another", "none"])
def test_a_running_job_keeps_its_checkpoint(
    empty_scene: Scene, change: dict[str, Any] | None
) -> None:
    empty_scene.create(make_job(checkpoint={"path": "/data"}))

    code, said = empty_scene.patch("demo", {"checkpoint": change})

    assert code == 422
    assert "change them only while the job is suspended" in said["message"]


def test_settings_that_all_members_share_can_change_once_no_pod_is_left(scene: Scene) -> None:
    scene.create(make_job(replicas=2, suspend=True))
    scene.condition("Suspended")
    sync = {"groupSize": 2, "seed": 1}

    code, said = scene.patch("demo", {"sync": sync, "checkpoint": {"path": "/data"}})

    assert code == 200, said
    assert said["spec"]["checkpoint"] == {"path": "/data"}
    assert {**said["spec"]["sync"], **sync} == said["spec"]["sync"]


def test_scale_subresource_changes_replicas_and_obeys_the_rules(empty_scene: Scene) -> None:
    empty_scene.create(make_job(replicas=2, elastic={"maxReplicas": 4}))
    scale = ("scale", "dsj/demo", "-n", empty_scene.namespace)

    empty_scene.plane.kubectl(*scale, "--replicas=4")
    refused = empty_scene.plane.kubectl(*scale, "--replicas=5", check=False)

    assert empty_scene.job()["spec"]["replicas"] == 4
    assert "replicas must lie between" in refused


def test_every_field_of_the_spec_is_explained() -> None:
    schema = yaml.safe_load(CRD.read_text())["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    silent = [path for path, part in walk(schema["properties"]["spec"], "spec") if not said(part)]

    assert silent == []


def walk(schema: dict[str, Any], path: str) -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)]
    for key, part in schema.get("properties", {}).items():
        if not path.startswith("spec.template"):
            found += walk(part, f"{path}.{key}")
    return found


def said(part: dict[str, Any]) -> bool:
    return len(part.get("description", "")) > 15


def test_resource_fits_every_limit_of_the_tools_that_carry_it(empty_scene: Scene) -> None:
    assert CRD.stat().st_size < 64 * 1024
    # Client-side apply keeps a copy in an annotation.
    said = empty_scene.plane.kubectl("apply", "--dry-run=server", "-f", str(CRD))
    assert "dssyncjobs.dssync.io" in said


def test_kubectl_explain_teaches_a_nested_field(empty_scene: Scene) -> None:
    said = empty_scene.plane.kubectl("explain", "dsj.spec.failurePolicy.backoffLimit")

    assert "Pods that fail within ten seconds of each other are one incident" in " ".join(
        said.split()
    )


@pytest.mark.parametrize(
    ("stray", "field"),
    [
        ({"nodeSelector": {"gpu": "yes"}}, "spec.template.nodeSelector"),
        ({"metadata": {"label": {"team": "a"}}}, "spec.template.metadata.label"),
        ({"metadata": {"finalizers": ["a/b"]}}, "spec.template.metadata.finalizers"),
    ],
)
def test_field_of_the_template_that_would_be_dropped_is_refused_as_kubectl_asks(
    empty_scene: Scene, stray: dict[str, Any], field: str
) -> None:
    job = make_job()
    job["spec"]["template"].update(stray)

    code, said = empty_scene.plane.request(
        "POST", f"{empty_scene.jobs}?fieldValidation=Strict", job
    )

    assert code == 400
    assert f'unknown field "{field}"' in said["message"]


def test_template_as_tools_write_it_is_taken(empty_scene: Scene) -> None:
    job = make_job()
    job["spec"]["template"]["metadata"] = {"creationTimestamp": None, "labels": {"team": "a"}}

    code, said = empty_scene.plane.request(
        "POST", f"{empty_scene.jobs}?fieldValidation=Strict", job
    )

    assert code == 201, said
