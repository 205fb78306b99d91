"""What a pod and its companions look like: the pod contract."""

from dataclasses import replace
from typing import Any

import pytest

from dssync import contract
from dssync_operator import resources
from dssync_operator.job import Job, WorkerRbac
from dssync_operator.plan import NewPod
from ground.models import make_spec_job


def worker(**fields: Any) -> dict[str, Any]:
    return {"name": "worker", "image": "x", **fields}


def template(*containers: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {"spec": {"containers": list(containers) or [worker()], **spec}}


def build(spec: dict[str, Any] | None = None, new: NewPod | None = None) -> dict[str, Any]:
    job = make_spec_job(**{"template": template(), **(spec or {})})
    return resources.pod(job, job.spec.template, "hash", new or NewPod(3, 1, "Start"))


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (found,) = [c for c in pod["spec"]["containers"] if c["name"] == "worker"]
    return found


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return contract.spread({e["name"]: e.get("value", "") for e in container(pod)["env"]})


def test_pod_is_named_and_labelled_by_slot_and_incarnation() -> None:
    pod = build()

    assert pod["metadata"]["name"] == "demo-w3-1"
    assert pod["metadata"]["labels"][contract.LABEL_SLOT] == "3"
    assert pod["metadata"]["labels"][contract.LABEL_INCARNATION] == "1"
    assert pod["metadata"]["labels"][contract.LABEL_JOB_UID] == "job-uid"
    assert pod["spec"]["restartPolicy"] == "Never"


def test_launcher_is_told_what_the_contract_says() -> None:
    spec = {
        "replicas": 4,
        "elastic": {"minReplicas": 2, "maxReplicas": 8, "belowMinTimeoutSeconds": 9},
        "nprocPerNode": 2,
        "sync": {"groupSize": 4, "every": 3, "mode": "pool", "seed": 7, "commit": "strict"},
        "checkpoint": {"path": "/c", "intervalSteps": 50, "keep": 2},
        "network": {"interface": "eth1"},
    }

    said = variables(build(spec))

    assert said["DSSYNC_SLOT"] == "3"
    assert (said["DSSYNC_DESIRED"], said["DSSYNC_MIN"], said["DSSYNC_MAX"]) == ("4", "2", "8")
    assert said["DSSYNC_NPROC_PER_NODE"] == "2"
    assert (said["DSSYNC_GROUP_SIZE"], said["DSSYNC_EVERY"]) == ("4", "3")
    assert (said["DSSYNC_MODE"], said["DSSYNC_SEED"], said["DSSYNC_COMMIT"]) == (
        "pool",
        "7",
        "strict",
    )
    assert said["DSSYNC_ARBITER"] == "lease:demo-job-uid"
    assert said["DSSYNC_CHECKPOINT_PATH"] == "/c"
    assert said["GLOO_SOCKET_IFNAME"] == said["NCCL_SOCKET_IFNAME"] == "eth1"
    assert said["DSSYNC_DRAIN_TIMEOUT_SECONDS"] == "60"


RESTART = {
    "name": "again",
    "action": "RestartWorker",
    "onExitCodes": {"operator": "NotIn", "values": list(range(10, 256))},
}


@pytest.mark.parametrize(("per_slot", "limit"), [(None, "6"), (2, "2")])
def test_launcher_is_told_after_which_codes_it_may_start_a_worker_again(
    per_slot: int | None, limit: str
) -> None:
    fail = {
        "name": "fatal",
        "action": "FailJob",
        "onExitCodes": {"operator": "In", "values": [3, 4]},
    }
    policy: dict[str, Any] = {"rules": [fail, RESTART]}
    if per_slot is not None:
        policy["backoffLimitPerIndex"] = per_slot

    told = variables(build({"failurePolicy": policy}))

    assert told["DSSYNC_RESTART_CODES"] == "1,2,5,6,7,8,9"
    assert told["DSSYNC_MAX_RESTARTS"] == limit
    assert "DSSYNC_MAX_RESTARTS" not in variables(build())


def test_who_and_where_a_pod_is_comes_before_its_settings_which_may_speak_of_it() -> None:
    *apart, settings = container(build())["env"]

    paths = {e["name"]: e["valueFrom"]["fieldRef"]["fieldPath"] for e in apart if "valueFrom" in e}
    assert paths == {
        "DSSYNC_POD_UID": "metadata.uid",
        "DSSYNC_POD_IP": "status.podIP",
        "DSSYNC_NODE_NAME": "spec.nodeName",
    }
    assert {e["name"] for e in apart} - paths.keys() == contract.IDENTITY
    assert settings["name"] == contract.ENV_SETTINGS


def test_every_variable_of_the_contract_is_set_or_belongs_to_somebody_else() -> None:
    spec = {
        "elastic": {"belowMinTimeoutSeconds": 9},
        "sync": {"groupSize": 4},
        "checkpoint": {"path": "/c", "intervalSteps": 50, "keep": 2},
        "network": {"interface": "eth1"},
        "failurePolicy": {"rules": [RESTART]},
    }
    names = {value for key, value in vars(contract).items() if key.startswith("ENV_")}

    assert names - set(variables(build(spec))) == OTHERS


OTHERS = {
    contract.ENV_TOPOLOGY,  # the user's override
    contract.ENV_LINK_FD,  # the launcher's own channel to its workers
    contract.ENV_SETTINGS,  # holds the others
}


@pytest.mark.parametrize(
    ("asked", "gpus", "backend", "processes"),
    [("auto", None, "gloo", "1"), ("auto", 4, "nccl", "4"), ("gloo", 4, "gloo", "4")],
)
def test_backend_and_processes_follow_the_gpus_that_the_template_asks_for(
    asked: str, gpus: int | None, backend: str, processes: str
) -> None:
    limits = {} if gpus is None else {"limits": {"nvidia.com/gpu": gpus}}
    given = template(worker(resources=limits))

    pod = build({"template": given, "sync": {"backend": asked}})

    assert variables(pod)["DSSYNC_BACKEND"] == backend
    assert variables(pod)["DSSYNC_NPROC_PER_NODE"] == processes
    assert container(pod)["resources"] == limits


def test_shared_memory_is_in_memory_unless_the_template_mounts_it() -> None:
    own = {"name": "mine", "mountPath": "/dev/shm"}

    default = build()
    given = build({"template": template(worker(volumeMounts=[own]))})

    assert {"name": "dssync-shm", "emptyDir": {"medium": "Memory"}} in default["spec"]["volumes"]
    assert [v["name"] for v in given["spec"]["volumes"]] == ["dssync-token"]


def test_users_environment_stays_and_cannot_shadow_the_contract() -> None:
    named = ("DSSYNC_SLOT", "DSSYNC_MODE", "DSSYNC_POD_IP", "DSSYNC_SETTINGS")
    env = [{"name": name, "value": "99"} for name in ("HOME", *named)]

    pod = build({"template": template(worker(env=env))})

    assert [e["name"] for e in container(pod)["env"] if e.get("value") == "99"] == ["HOME"]
    assert (variables(pod)["DSSYNC_SLOT"], variables(pod)["DSSYNC_MODE"]) == ("3", "grid")


def test_sidecars_security_and_other_parts_of_the_template_pass_untouched() -> None:
    given = template(
        worker(securityContext={"capabilities": {"add": ["IPC_LOCK"]}}),
        {"name": "proxy", "image": "p"},
        runtimeClassName="nvidia",
        terminationGracePeriodSeconds=120,
        tolerations=[{"key": "gpu", "operator": "Exists"}],
    )

    pod = build({"template": given})

    assert pod["spec"]["containers"][1] == {"name": "proxy", "image": "p"}
    assert container(pod)["securityContext"] == {"capabilities": {"add": ["IPC_LOCK"]}}
    assert pod["spec"]["runtimeClassName"] == "nvidia"
    assert pod["spec"]["tolerations"][0] == {"key": "gpu", "operator": "Exists"}
    assert variables(pod)["DSSYNC_DRAIN_TIMEOUT_SECONDS"] == "120"


def test_unreachable_nodes_are_tolerated_for_as_long_as_asked() -> None:
    pod = build({"nodeFailure": {"unreachableSeconds": 12}})

    assert {t["key"]: t["tolerationSeconds"] for t in pod["spec"]["tolerations"]} == {
        "node.kubernetes.io/not-ready": 12,
        "node.kubernetes.io/unreachable": 12,
    }


def test_mesh_injection_is_off_unless_the_template_wants_it() -> None:
    wanted = {"sidecar.istio.io/inject": "true"}
    given = {**template(), "metadata": {"annotations": wanted}}

    assert build()["metadata"]["annotations"]["sidecar.istio.io/inject"] == "false"
    on = build({"template": given})["metadata"]["annotations"]
    assert on["sidecar.istio.io/inject"] == "true"


def test_host_network_takes_ephemeral_ports_and_the_clusters_dns() -> None:
    pod = build({"network": {"hostNetwork": True}})

    assert pod["spec"]["hostNetwork"] is True
    assert pod["spec"]["dnsPolicy"] == "ClusterFirstWithHostNet"
    assert variables(pod)["DSSYNC_RENDEZVOUS_PORT"] == "0"
    assert "ports" not in container(pod)


def test_static_rendezvous_points_to_slot_0_and_needs_no_rights() -> None:
    job = make_spec_job(template=template(), rendezvous={"mode": "Static", "port": 1234})

    pod = resources.pod(job, job.spec.template, "hash", NewPod(1, 0, "Start"))

    assert variables(pod)["DSSYNC_ARBITER"] == "static:demo-w0.demo-job-uid.ns.svc:1234"
    assert "serviceAccountName" not in pod["spec"]
    assert resources.applied(job, job.spec.template, network_policy=False) == ()


def test_role_allows_one_lease_and_nothing_else() -> None:
    job = make_spec_job(template=template())

    made = resources.applied(job, job.spec.template, network_policy=False)

    (role,) = [each for each in made if each["kind"] == "Role"]

    assert role["rules"] == [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": ["demo-job-uid"],
            "verbs": ["get", "watch", "update"],
        }
    ]


def test_launcher_speaks_where_the_kubelet_of_its_template_listens() -> None:
    container = worker(terminationMessagePath="/tmp/last-words")

    told = settings_of(container)

    assert told["DSSYNC_TERMINATION_LOG"] == "/tmp/last-words"
    assert settings_of(worker())["DSSYNC_TERMINATION_LOG"] == "/dev/termination-log"


def settings_of(container: dict[str, Any]) -> dict[str, str]:
    job = make_spec_job(template=template(container))
    return resources.variables(job, job.spec.template, NewPod(0, 0, "Start"))


@pytest.mark.parametrize("field", ["serviceAccountName", "serviceAccount"])
def test_account_of_the_template_is_kept_and_gets_the_right(field: str) -> None:
    job = make_spec_job(template=template(**{field: "storage"}))

    kinds = companions(job, job.spec.template)

    assert "ServiceAccount" not in kinds
    assert kinds["RoleBinding"]["subjects"][0]["name"] == "storage"
    pod = resources.pod(job, job.spec.template, "hash", NewPod(0, 0, "Start"))
    assert pod["spec"][field] == "storage"
    assert len({"serviceAccountName", "serviceAccount"} & set(pod["spec"])) == 1


@pytest.mark.parametrize(("kept", "edited"), [("", "storage"), ("storage", "")])
def test_right_stays_with_the_account_of_the_template_that_pods_are_made_from(
    kept: str, edited: str
) -> None:
    old, new = (
        template(**({"serviceAccountName": name} if name else {})) for name in (kept, edited)
    )

    made = companions(make_spec_job(template=new), old)

    assert made["RoleBinding"]["subjects"][0]["name"] == (kept or "demo-job-uid")
    assert ("ServiceAccount" in made) == (kept == "")


def companions(job: Job, of_template: dict[str, Any]) -> dict[str, dict[str, Any]]:
    made: Any = resources.applied(job, of_template, network_policy=False)
    return {each["kind"]: each for each in made}


def test_workers_of_a_namespace_share_an_account_that_the_chart_has_made() -> None:
    job = replace(make_spec_job(template=template()), worker_rbac=WorkerRbac.NAMESPACE)

    pod = resources.pod(job, job.spec.template, "hash", NewPod(0, 0, "Start"))

    assert resources.applied(job, job.spec.template, network_policy=False) == ()
    assert pod["spec"]["serviceAccountName"] == "dssync-worker"


def test_workers_without_rights_have_the_account_of_their_template() -> None:
    job = replace(make_spec_job(template=template()), worker_rbac=WorkerRbac.NONE)

    pod = resources.pod(job, job.spec.template, "hash", NewPod(0, 0, "Start"))

    assert resources.applied(job, job.spec.template, network_policy=False) == ()
    assert "serviceAccountName" not in pod["spec"]


def test_service_is_headless_dual_stack_and_publishes_pods_that_are_not_ready() -> None:
    job = make_spec_job(template=template())

    spec = resources.service(job, job.spec.template, "hash")["spec"]

    assert spec["clusterIP"] == "None"
    assert spec["ipFamilyPolicy"] == "PreferDualStack"
    assert spec["publishNotReadyAddresses"] is True


def test_two_secrets_never_hold_the_same_token() -> None:
    job = make_spec_job(template=template())

    tokens = {resources.secret(job)["stringData"]["token"] for _ in range(2)}

    assert len(tokens) == 2
    assert all(len(token) == 64 for token in tokens)
