"""A job on one GPU: a worker dies, its mates go on, a newcomer joins."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "scripts" / "train.py"


@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_a_killed_worker_costs_its_mates_a_retry_and_comes_back(
    backend: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "dssync.cli", "run", "--standalone", "--interface", "lo"]
    flags = ["--nproc-per-node", "4", "--group-size", "2", "--max-restarts", "1"]

    run = subprocess.run(
        [*command, *flags, "--backend", backend, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=280,
    )

    assert run.returncode == 0, run.stderr
    results = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(4)]
    assert [each["restarts"] for each in results] == [0, 0, 0, 1], "no survivor was restarted"
    assert any(each["retried"] for each in results)
    assert all(each["finite"] and each["world_size"] == 4 for each in results)
    assert len({each["sum"] for each in results}) == 1, "all hold the mean after the final flush"
