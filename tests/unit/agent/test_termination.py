"""The pod's last word."""

import json
from pathlib import Path

from dssync import contract
from dssync.agent.termination import Termination, write


def test_the_verdict_is_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"

    write(path, Termination(contract.VERDICT_USER_ERROR, "worker 1 failed", 3, 120))

    assert json.loads(path.read_text()) == {
        "verdict": "UserError",
        "reason": "worker 1 failed",
        "exit_code": 3,
        "step": 120,
    }


def test_a_long_reason_keeps_its_end_and_fits_what_the_kubelet_keeps(tmp_path: Path) -> None:
    path = tmp_path / "termination-log"

    write(path, Termination(contract.VERDICT_USER_ERROR, "…" * 5000 + "ValueError", 1, 0))

    assert path.stat().st_size <= 4096
    assert json.loads(path.read_text())["reason"].endswith("ValueError")


def test_a_file_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    write(tmp_path / "missing" / "log", Termination(contract.VERDICT_DONE, "", 0, 1))

    assert list(tmp_path.iterdir()) == []
