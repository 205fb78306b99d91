"""Every series that a launcher exposes is fed by something that happens in a job."""

import signal
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from dssync.agent.series import SERIES
from integration.job.harness import Job, Launcher, matching
from integration.job.takeovers import linked, pods_of

pytestmark = pytest.mark.timeout(300)


def scrape(launcher: Launcher) -> dict[str, float]:
    """Return the values of a launcher's samples, by name and labels."""
    address = next(w for w in launcher.text.split() if w.startswith("address="))[8:]
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return {
        " ".join([sample.name, *map("=".join, sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_series_is_fed(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSSYNC_CHECKPOINT_PATH", str(job.folder / "checkpoints"))
    monkeypatch.setenv("DSSYNC_CHECKPOINT_INTERVAL_STEPS", "10")
    job.resize(desired=2)
    flags = ("--metrics-port", "0", "--max-restarts", "2")
    pods = [job.pod(slot, 2, *flags, sync={"group_size": 4}) for slot in range(2)]
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 4)
    other = next(each for each in pods if each is not job.coordinator())
    slot = pods.index(other)
    with job.board.hold(matching(event="step", slot=slot, rank=1)) as held:
        job.kill(held()["pid"])
    job.board.wait(matching(event="round", slot=slot, rank=1, life=1), 20)
    # Nobody sees an error while its mate only waits: whoever gives the sum up first walks away from
    # an operation. After a kill that is not certain, because errors run around the ring.
    with job.board.hold(matching(event="step", slot=slot, rank=1, life=1)) as held:
        late = held()["step"]
        job.board.next(matching(event="round", cause="deadline"))
    job.board.wait(lambda line: line.get("life") == 1 and line.get("steps", 0) > late + 20)

    values = [scrape(each) for each in pods]
    fed = {key.split()[0] for each in values for key, value in each.items() if value}

    def is_fed(name: str) -> bool:
        return bool(fed & {name, f"{name}_count"})

    # A drain is measured at its end, when nobody can ask any more; only NCCL has aborts; no
    # stranger has come. The sum that was given up may still be in the reaper, or not.
    exempt = {
        "dssync_drain_duration_seconds",
        "dssync_reaper_pending",
        "dssync_aborts_hung_total",
        "dssync_connections_refused_total",
    }
    unfed = {series.name for series in SERIES if not is_fed(series.name)}
    assert unfed | {"dssync_reaper_pending"} == exempt
    parts = {
        key.split("=")[1]
        for each in values
        for key, value in each.items()
        if value and key.startswith("dssync_checkpoint_duration_seconds_count")
    }
    assert parts == {"list", "stage", "write"}
    coordinator = values[pods.index(job.coordinator())]
    assert coordinator["dssync_members state=active"] == 4
    assert coordinator["dssync_members state=benched"] == 0
    assert coordinator["dssync_reform_duration_seconds_count cause=exit"] >= 1
    other.signal(signal.SIGTERM)
    assert other.end() == 0


def test_a_coordinator_that_stepped_down_shows_no_members(job: Job) -> None:
    pods = pods_of(job, 3, 1, "--metrics-port", "0")
    first = job.coordinator()
    leader = "dssync_coordinator_leader"
    assert scrape(first)[leader] == 1

    first.signal(signal.SIGSTOP)
    linked(job, 2, [pod for pod in pods if pod is not first])
    first.signal(signal.SIGCONT)
    linked(job, 2, [first])
    former = scrape(first)

    assert former[leader] == 0
    counted = [value for key, value in former.items() if key.startswith("dssync_members ")]
    assert counted
    assert not any(counted)
