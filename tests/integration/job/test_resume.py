"""A job that is killed as a whole goes on from its checkpoint, with other workers."""

import json
import signal
from collections import Counter

import pytest

from dssync.worker import checkpoint
from integration.job.harness import Job, Launcher, Line, matching

SAMPLES, EPOCHS = 3001, 1


def start(job: Job, workers: int, *flags: str) -> Launcher:
    spec = {"kind": "digits", "samples": SAMPLES, "batch_size": 4, "epochs": EPOCHS}
    spec |= {"pace_file": str(job.folder / "pace"), "pace_seconds": 0.01}
    variables = {
        "DSSYNC_CHECKPOINT_PATH": str(job.folder / "saved"),
        "DSSYNC_CHECKPOINT_INTERVAL_STEPS": "20",
    }
    return job.run(
        *("--standalone", "--nproc-per-node", str(workers), "--commit", "strict", *flags),
        script="exact.py",
        environment=variables,
        **spec,
    )


@pytest.mark.timeout(200)
@pytest.mark.parametrize(("workers", "others", "mode"), [(4, 2, "pool"), (2, 5, "allreduce")])
def test_other_workers_in_another_mode_train_on_exactly_what_is_left(
    job: Job, workers: int, others: int, mode: str
) -> None:
    (job.folder / "pace").touch()
    first = start(job, workers, "--mode", "grid", "--group-size", "2")
    job.board.wait(first.says("checkpoint", "holds round"), 2)
    # Something is to be lost, so that what is resumed is not what was there last.
    job.board.next(matching(event="round"))
    first.signal(signal.SIGKILL)
    first.end()
    killed_at = len(job.board.lines)
    newest = checkpoint.published(job.folder / "saved")[-1]
    saved = json.loads((newest / "manifest.json").read_text())["facts"]
    (job.folder / "pace").unlink()

    second = start(job, others, "--mode", mode, "--group-size", "2")

    assert second.end() == 0
    rounds = [line for line in job.board.lines if line["event"] == "round"]
    before = [x for x in job.board.lines[:killed_at] if x["event"] == "round"]
    kept = [line for line in before if line["round"] <= saved["round"]]
    assert len(kept) < len(before)
    total = counted(kept) + counted(rounds[len(before) :])
    assert total == Counter(dict.fromkeys(range(SAMPLES), EPOCHS))
    assert f"resumed from {newest}" in second.text
    assert "committed=751 total=751 repeated=0" in second.text
    assert len({line["own"] for line in rounds[len(before) :]}) == others


@pytest.mark.timeout(200)
def test_a_job_that_is_told_to_go_as_a_whole_saves_its_last_round(job: Job) -> None:
    (job.folder / "pace").touch()
    first = start(job, 2, "--group-size", "2")
    job.board.wait(matching(event="round"), 12)
    first.signal(signal.SIGTERM)
    assert first.end() == 0
    killed_at = len(job.board.lines)
    newest = checkpoint.published(job.folder / "saved")[-1]
    saved = json.loads((newest / "manifest.json").read_text())["facts"]
    (job.folder / "pace").unlink()

    second = start(job, 3, "--group-size", "2")

    assert second.end() == 0
    lines = [line for line in job.board.lines[:killed_at] if line["event"] == "round"]
    assert {line["kind"] for line in lines if line["round"] == saved["round"]} == {"suspend"}
    assert saved["round"] == max(line["round"] for line in lines)
    assert len(saved["views"][0]["members"]) == 2
    after = [line for line in job.board.lines[killed_at:] if line["event"] == "round"]
    total = counted(lines) + counted(after)
    assert total == Counter(dict.fromkeys(range(SAMPLES), EPOCHS)), "no work was lost"


def counted(lines: list[Line]) -> Counter[int]:
    found = Counter[int]()
    for line in lines:
        found.update(line["samples"])
    return found
