"""The script that the chart's trial trains with, run for real by two workers."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "charts" / "dssync" / "files" / "trial.py"


@pytest.mark.timeout(180)
def test_two_workers_train_the_script_of_the_trial_to_its_end() -> None:
    dssync = Path(sys.executable).with_name("dssync")
    command = [dssync, "run", "--standalone", "--nproc-per-node", "2", SCRIPT]

    done = subprocess.run(command, capture_output=True, text=True, timeout=150)

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the trial has trained") == 2


def test_the_script_of_the_trial_fails_where_nothing_is_learnt(tmp_path: Path) -> None:
    lazy = tmp_path / "trial.py"
    lazy.write_text(SCRIPT.read_text().replace("optimizer.step()", "pass"))

    done = subprocess.run([sys.executable, lazy], capture_output=True, text=True, timeout=60)

    assert done.returncode != 0
    assert "the trial has learnt nothing" in done.stderr
