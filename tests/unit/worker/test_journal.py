"""What a member writes down is worth less than what it does."""

from pathlib import Path

import pytest

from dssync.worker.journal import Journal


def test_a_full_disk_ends_the_log_and_not_the_training(capsys: pytest.CaptureFixture[str]) -> None:
    journal = Journal("0.0.a", "/dev/full")

    journal.skipped(3, False)
    journal.skipped(4, False)

    assert not journal.kept
    assert capsys.readouterr().err.count("/dev/full") == 1


def test_a_log_that_a_member_makes_is_for_its_user_alone(tmp_path: Path) -> None:
    Journal("0.0.a", str(tmp_path / "log"))

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
