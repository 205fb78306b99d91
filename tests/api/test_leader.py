"""Which replica acts, and how fast another one follows."""

import signal
import time
from datetime import datetime
from pathlib import Path

import pytest

from ground.control_plane import ControlPlane
from ground.process import OperatorProcess
from ground.scene import Scene, make_job

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases"


def holder_until(plane: ControlPlane, name: str, not_before: str = "") -> str:
    """Wait until somebody else than ``not_before`` holds the Lease."""

    def held(leases: list) -> bool:
        spec = leases[0].get("spec", {}) if leases else {}
        return spec.get("holderIdentity", "") not in ("", not_before)

    found = plane.until(f"{LEASE}?fieldSelector=metadata.name={name}", held, seconds=45)
    return str(found[0]["spec"]["holderIdentity"])


def acquired_at(plane: ControlPlane, name: str) -> float:
    """When the holder took the Lease, in seconds since 1970."""
    stamp = plane.request("GET", f"{LEASE}/{name}")[1]["spec"]["acquireTime"]
    return datetime.fromisoformat(stamp).timestamp()


def start(plane: ControlPlane, tmp_path: Path, scene: Scene, identity: str) -> OperatorProcess:
    return OperatorProcess(
        plane.kubeconfig,
        tmp_path / f"{identity}.log",
        namespaces=scene.namespace,
        lease_name=scene.namespace,
        identity=identity,
        log_format="plain",
    )


@pytest.mark.timeout(150)
def test_standby_takes_over_within_a_second_of_sigterm_and_15_of_sigkill(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    with start(quiet_plane, tmp_path, scene, "one") as one:
        assert holder_until(quiet_plane, scene.namespace) == "one"
        with start(quiet_plane, tmp_path, scene, "two") as two:
            wait_ready(two)
            assert two.get("/readyz") == (200, "standby")
            asked_at = time.time()
            code = one.stop(signal.SIGTERM)
            assert holder_until(quiet_plane, scene.namespace, "one") == "two"
            waited = acquired_at(quiet_plane, scene.namespace) - asked_at
            assert waited < 1.0 + 0.5  # and half a second of polling
            assert code == 0
            scene.create(make_job(replicas=2))
            scene.live_pods(2)

            with start(quiet_plane, tmp_path, scene, "three") as three:
                wait_ready(three)
                two.process.kill()
                before = time.monotonic()
                scene.patch("demo", {"suspend": True})
                assert holder_until(quiet_plane, scene.namespace, "two") == "three"
                scene.pods_until(lambda pods: not pods)
                assert time.monotonic() - before < 15.0


def wait_ready(process: OperatorProcess) -> None:
    give_up = time.monotonic() + 45
    while process.get("/readyz")[0] != 200:
        assert time.monotonic() < give_up, process.log.read_text()
        assert process.process.poll() is None, process.log.read_text()


@pytest.mark.timeout(150)
def test_operator_that_cannot_renew_ends_before_another_may_lead(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    scene = Scene(quiet_plane)
    with start(quiet_plane, tmp_path, scene, "paused") as paused:
        holder_until(quiet_plane, scene.namespace)
        with start(quiet_plane, tmp_path, scene, "next") as standby:
            wait_ready(standby)
            paused.process.send_signal(signal.SIGSTOP)
            assert holder_until(quiet_plane, scene.namespace, "paused") == "next"
            paused.process.send_signal(signal.SIGCONT)

            assert paused.process.wait(10) != 0


def test_wrong_setting_ends_the_operator_with_one_sentence(
    quiet_plane: ControlPlane, tmp_path: Path
) -> None:
    with OperatorProcess(quiet_plane.kubeconfig, tmp_path / "log", qps="many") as process:
        assert process.process.wait(10) == 1

    assert (tmp_path / "log").read_text() == (
        "dssync-operator: DSSYNC_OPERATOR_QPS is 'many'; expected a number\n"
    )
