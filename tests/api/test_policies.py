"""What the operator does about each fate of a pod, a node and a spec, at the real API server."""

import json

from ground.scene import Scene, condition_of, live, make_job, slot_of

VIEW = json.dumps({"term": 1, "sequence": 4, "pods": 2, "workers": 2})


def test_failed_pod_is_replaced_and_its_failure_counted(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    first, second = scene.run_all(2)

    scene.kubelet.end(second, 3, "UserError")

    scene.names("demo-w0-0", "demo-w1-0", "demo-w1-1")
    status = scene.status_until(lambda status: status.get("restarts", {}).get("total") == 1)
    assert "demo-w1-0 ended with exit code 3" in status["terminationMessage"]
    assert scene.pods()[0]["metadata"]["uid"] == first["metadata"]["uid"]


def test_exit_of_a_vanished_pod_is_confirmed_in_the_lease_before_its_replacement(
    scene: Scene,
) -> None:
    scene.create(make_job(replicas=2))
    gone = scene.run_all(2)[1]

    scene.kubelet.remove(gone)
    scene.live_pods(2)

    assert gone["metadata"]["uid"] in scene.lease()["metadata"]["annotations"]["dssync.io/gone"]


def test_job_follows_its_replicas_up_and_down(scene: Scene) -> None:
    scene.create(make_job(replicas=2, elastic={"maxReplicas": 5, "stabilizationSeconds": 0}))
    scene.run_all(2)

    scene.patch("demo", {"replicas": 5})
    scene.run_all(5)
    assert scene.lease()["metadata"]["annotations"]["dssync.io/desired"] == "5"
    scene.patch("demo", {"replicas": 3})
    left = scene.live_pods(3)

    assert {slot_of(pod) for pod in left} == {0, 1, 2}


def test_suspended_job_drains_all_pods_and_resumes_with_new_ones(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    old = {pod["metadata"]["uid"] for pod in scene.run_all(2)}

    scene.patch("demo", {"suspend": True})
    leaving = scene.pods_until(lambda pods: not live(pods))
    assert condition_of(scene.job()["status"], "Suspended").get("status") != "True"
    for pod in leaving:
        scene.kubelet.remove(pod)
    scene.condition("Suspended")
    scene.patch("demo", {"suspend": False})

    assert old.isdisjoint(pod["metadata"]["uid"] for pod in scene.live_pods(2))
    scene.condition("Suspended", "False", "JobResumed")


def test_job_that_starts_suspended_has_no_pods_and_says_so(scene: Scene) -> None:
    scene.create(make_job(suspend=True))

    scene.condition("Suspended")

    assert scene.pods() == []
    assert scene.job()["status"]["state"] == "Suspended"


def test_job_of_another_manager_is_left_alone(scene: Scene) -> None:
    scene.create(make_job("theirs", managedBy="kueue.x-k8s.io/multikueue"))
    scene.create(make_job("ours", managedBy="dssync.io/operator"))

    scene.status_until(lambda status: status.get("replicas") == 1, "ours")

    assert "status" not in scene.job("theirs")


def test_view_and_progress_in_the_lease_reach_the_status(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    scene.say("launcher-7", view=VIEW, progress=json.dumps({"step": 30, "total_steps": 120}))

    scene.condition("Running", "True", "WorldFormed")
    status = scene.job()["status"]
    assert status["membership"].pop("lastChangeTime").endswith("Z")
    assert status["membership"] == {
        "view": "1.4",
        "term": 1,
        "worldSize": 2,
        "coordinator": "launcher-7",
        "lastChangeReason": "WorldFormed",
    }
    assert status["progress"].pop("lastUpdateTime").endswith("Z")
    assert status["progress"] == {"step": 30, "totalSteps": 120, "percent": 25}
    assert status["state"] == "Running"
    told = {"CoordinatorElected", "ViewCommitted"}
    scene.plane.until(
        scene.path("events", "/apis/events.k8s.io/v1"),
        lambda found: told <= {event["reason"] for event in found},
    )


def test_failover_and_who_joins_and_is_lost_are_told_from_the_lease(scene: Scene) -> None:
    scene.create(make_job(replicas=3))
    pods = scene.run_all(3)
    listed = [
        {"slot": slot, "uid": pod["metadata"]["uid"], "address": "10.0.0.1:1", "process": ""}
        for slot, pod in enumerate(pods)
    ]

    def say(sequence: int, launchers: list[dict[str, object]]) -> None:
        view = {"term": 1, "sequence": sequence, "pods": len(launchers), "workers": 3}
        texts = {"view": json.dumps(view), "launchers": json.dumps(launchers)}
        scene.say(str(launchers[0]["uid"]), **texts)

    say(1, listed[:2])
    # Before the view is told, the first pod that runs is joining as well.
    first = scene.status_until(
        lambda status: status["membership"]["view"] == "1.1" and status["workers"]["joining"] == 1
    )
    say(2, listed)
    scene.status_until(lambda status: status["workers"]["joining"] == 0)
    scene.kubelet.remove(pods[0])
    scene.condition("Degraded", "True", "CoordinatorFailover")
    scene.status_until(lambda status: status["workers"]["lost"] == 1)
    say(3, listed[1:])
    scene.status_until(lambda status: status["workers"]["lost"] == 0)

    assert first["membership"]["lastChangeTime"]
    wanted = {"WorkerJoined", "CoordinatorFailover", "CoordinatorElected"}
    scene.plane.until(
        scene.path("events", "/apis/events.k8s.io/v1"),
        lambda found: wanted <= {event["reason"] for event in found},
    )


def test_step_that_stays_is_shown_as_no_progress_and_told(scene: Scene) -> None:
    scene.create(make_job(replicas=2, health={"hangTimeoutSeconds": 2}))
    scene.run_all(2)
    scene.status_until(lambda status: status.get("readyReplicas") == 2)

    scene.say("launcher-7", view=VIEW, progress=json.dumps({"step": 30}))

    stalled = scene.condition("Running", "False", "NoProgress")
    assert "step 30 has been the last one" in stalled["message"]
    scene.plane.until(
        scene.path("events", "/apis/events.k8s.io/v1"),
        lambda found: any(event["reason"] == "NoProgress" for event in found),
    )
    scene.say("launcher-7", view=VIEW, progress=json.dumps({"step": 31}))
    scene.condition("Running", "True", "WorldFormed")


def test_completion_in_the_lease_completes_the_job(scene: Scene) -> None:
    scene.create(make_job(replicas=2))
    for pod in scene.run_all(2):
        scene.kubelet.end(pod, 1, "UserError")

    scene.say(completed="true")

    assert "recorded" in scene.condition("Complete")["message"]


def test_startup_deadline_fails_a_job_that_forms_no_world(scene: Scene) -> None:
    scene.create(make_job(startupDeadlineSeconds=1))

    scene.condition("Failed", "True", "StartupDeadlineExceeded")

    scene.pods_until(lambda pods: not pods)


def test_active_deadline_fails_a_job_that_runs_too_long(scene: Scene) -> None:
    scene.create(make_job(activeDeadlineSeconds=1))

    scene.condition("Failed", "True", "DeadlineExceeded")


def test_finished_job_disappears_after_its_time_to_live(scene: Scene) -> None:
    scene.create(make_job(ttlSecondsAfterFinished=1))
    scene.kubelet.end(scene.run_all(1)[0])
    scene.condition("Complete")

    scene.plane.until(scene.jobs, lambda jobs: not jobs)


def test_backoff_limit_fails_the_job_with_the_first_words(scene: Scene) -> None:
    scene.create(make_job(failurePolicy={"backoffLimit": 0}))

    scene.kubelet.end(scene.run_all(1)[0], 17, "UserError")

    condition = scene.condition("Failed", "True", "BackoffLimitExceeded")
    assert "exit code 17" in condition["message"]


def test_rule_replaces_a_worker_on_another_node(scene: Scene) -> None:
    rule = {
        "name": "gpu",
        "action": "ReplaceWorker",
        "onExitCodes": {"operator": "In", "values": [77]},
    }
    scene.create(make_job(failurePolicy={"rules": [rule]}))
    (pod,) = scene.live_pods(1)
    scene.kubelet.run(pod, "bad-node")

    scene.kubelet.end(pod, 77, None)

    (replacement,) = scene.live_pods(1)
    (term,) = replacement["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert term["matchFields"] == [
        {"key": "metadata.name", "operator": "NotIn", "values": ["bad-node"]}
    ]


def test_image_that_cannot_be_pulled_is_named_in_the_status(scene: Scene) -> None:
    scene.create(make_job())
    (pod,) = scene.live_pods(1)
    scene.kubelet.bind(pod)

    scene.kubelet.wait(pod, "ImagePullBackOff", "no such image: example/trainer")

    condition = scene.condition("Degraded", "True", "ImagePullFailed")
    assert "no such image" in condition["message"]
    (problem,) = scene.job()["status"]["workers"]["problems"]
    assert problem["pod"] == "demo-w0-0"


def test_pod_that_no_node_fits_is_explained(scene: Scene) -> None:
    scene.create(make_job())
    (pod,) = scene.live_pods(1)

    scene.kubelet.unschedulable(pod, "0/3 nodes have nvidia.com/gpu")

    condition = scene.condition("Scheduled", "False", "Unschedulable")
    assert "0/3 nodes have nvidia.com/gpu" in condition["message"]
