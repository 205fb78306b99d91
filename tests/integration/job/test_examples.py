"""The examples train in pairs of four workers, as their README says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(240)

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(
    ("name", "arguments", "metric", "low", "high"),
    [
        ("digits", ("--epochs", "3"), "accuracy", 0.7, 1.0),
        # 5.5 nats: a model that knows nothing.
        ("charlm", ("--max-bytes", "60000"), "loss", 1.0, 4.0),
    ],
)
def test_an_example_trains_in_four_workers(
    tmp_path: Path, name: str, arguments: tuple[str, ...], metric: str, low: float, high: float
) -> None:
    out = tmp_path / "result.json"
    run = [sys.executable, "-m", "dssync.cli", "run", "--standalone", "--nproc-per-node", "4"]
    script = [str(EXAMPLES / name / "train.py"), *arguments, "--out", str(out)]

    ended = subprocess.run([*run, "--group-size", "2", *script], capture_output=True, text=True)

    assert ended.returncode == 0, ended.stderr
    assert low < json.loads(out.read_text())[metric] <= high
    assert "repeated=0" in ended.stderr
