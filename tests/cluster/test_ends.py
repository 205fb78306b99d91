"""How jobs end that do not simply train to the end: limits, rules, deadlines, sidecars."""

from typing import Any

from cluster.field import Field, Manifest
from dssync import contract

SCRIPT = ("dssync", "run", "--no-python", "sh", "-c")


def job_of(field: Field, shell: str, **spec: Any) -> Manifest:
    """A job of two pods, each with one worker that is a shell command."""
    job = field.digits(replicas=2, **spec)
    worker = job["spec"]["template"]["spec"]["containers"][0]
    worker["command"], worker["args"] = list(SCRIPT), [shell]
    return job


def failed_for(field: Field) -> str:
    """Wait for the job's failure and return its reason."""
    field.wait("Failed")
    found = [c for c in field.status()["conditions"] if c["type"] == "Failed"]
    return str(found[0]["reason"])


def test_a_script_that_always_fails_uses_up_its_limit(field: Field) -> None:
    field.apply(job_of(field, "exit 7", failurePolicy={"backoffLimit": 1}))

    assert failed_for(field) == "BackoffLimitExceeded"

    assert "exit code 7" in field.status()["terminationMessage"]


SOME = 'if [ "$DSSYNC_SLOT" = 0 ]; then exit 0; else exit 3; fi'


def test_a_script_that_fails_on_some_pods_fails_the_job_and_is_not_run_again_where_it_was_done(
    field: Field,
) -> None:
    field.apply(job_of(field, SOME, failurePolicy={"backoffLimit": 1}))

    assert failed_for(field) == "BackoffLimitExceeded"

    assert "exit code 3" in field.status()["terminationMessage"]
    assert field.status()["done"] == [0]
    assert [p["metadata"]["labels"][contract.LABEL_SLOT] for p in field.pods()].count("0") == 1


def test_one_pod_that_succeeds_is_enough_where_the_job_says_so(field: Field) -> None:
    field.apply(job_of(field, SOME, successPolicy="Any"))

    field.wait("Complete")


def test_a_rule_ends_the_job_at_once(field: Field) -> None:
    codes = {"operator": "In", "values": [42]}
    rule = {"name": "hopeless", "action": "FailJob", "onExitCodes": codes}
    field.apply(job_of(field, "exit 42", failurePolicy={"rules": [rule]}))

    assert failed_for(field) == "FailJobRuleMatched"


def test_a_deadline_ends_the_job_and_its_pods(field: Field) -> None:
    field.apply(job_of(field, "exec sleep 600", activeDeadlineSeconds=5))

    assert failed_for(field) == "DeadlineExceeded"

    field.until(lambda: not field.live(), "no pod runs", seconds=90.0)


def test_a_finished_job_goes_after_its_time(field: Field) -> None:
    policy = {"backoffLimit": 0}
    field.apply(job_of(field, "exit 1", failurePolicy=policy, ttlSecondsAfterFinished=1))

    def gone() -> bool:
        return not field.kubectl.get(f"--namespace={field.namespace}", "dsj")["items"]

    field.until_gone(gone, seconds=60.0)


def test_a_sidecar_neither_blocks_nor_decides_the_end(field: Field) -> None:
    job = field.digits("--epochs", "2", replicas=2)
    containers = job["spec"]["template"]["spec"]["containers"]
    forever = ["python", "-c", "import signal; signal.pause()"]
    image = {key: containers[0][key] for key in ("image", "imagePullPolicy")}
    containers.insert(0, {"name": "sidecar", **image, "command": forever})

    field.apply(job)

    field.wait("Complete")
    field.until(lambda: not field.live(), "the sidecars have ended, too", seconds=120.0)
