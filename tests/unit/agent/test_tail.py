"""The end of a log file."""

from pathlib import Path

from dssync.agent.logs import tail


def test_a_short_file_is_given_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"caf\xc3\xa9\n\xff")

    assert tail(tmp_path / "log") == "café\n\ufffd"


def test_a_long_file_is_cut_at_the_start_of_a_line(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("".join(f"{i:08d}\n" for i in range(5000)))

    lines = tail(tmp_path / "log").splitlines()

    assert lines[-1] == "00004999"
    assert 800 < len(lines) < 1000
    assert {len(line) for line in lines} == {8}


def test_a_file_that_was_never_made_has_no_end(tmp_path: Path) -> None:
    assert tail(tmp_path / "log") == ""
