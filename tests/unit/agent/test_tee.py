"""Streams on their way to a file and the console."""

import os
from pathlib import Path

import pytest

from dssync.agent.tee import Tee

MORE_THAN_A_PIPE_HOLDS = 1 << 16


@pytest.mark.parametrize("last", [b"two", b"two\n"])
@pytest.mark.parametrize("attempt", range(10))
def test_closing_at_once_still_copies_everything(tmp_path: Path, last: bytes, attempt: int) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    console = os.open(tmp_path / "console", os.O_WRONLY | os.O_CREAT)
    tee = Tee()

    sink = tee.add(file, console, f"[{attempt}]:")
    os.write(sink, b"one\n" + last)
    os.close(sink)
    tee.close()

    assert (tmp_path / "log").read_bytes() == b"one\n" + last
    assert (tmp_path / "console").read_text() == f"[{attempt}]:one\n[{attempt}]:two\n"
    os.close(console)


def test_closing_does_not_wait_for_whoever_still_holds_the_stream(tmp_path: Path) -> None:
    file = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    tee = Tee()
    console = os.open(os.devnull, os.O_WRONLY)
    sink = tee.add(file, console, "")
    os.write(sink, b"said\n")

    tee.close()

    assert (tmp_path / "log").read_bytes() == b"said\n"
    os.close(sink)
    os.close(console)


@pytest.mark.parametrize("full", ["log", "console"])
def test_a_sink_that_cannot_be_written_stops_neither_the_worker_nor_the_other_sink(
    tmp_path: Path, full: str
) -> None:
    paths = {"log": tmp_path / "log", "console": tmp_path / "console", full: Path("/dev/full")}
    file, console = (os.open(path, os.O_WRONLY | os.O_CREAT) for path in paths.values())
    tee = Tee()
    lines = b"a line\n" * MORE_THAN_A_PIPE_HOLDS

    sink = tee.add(file, console, "")
    left = memoryview(lines)
    while left:
        left = left[os.write(sink, left) :]
    os.close(sink)
    tee.close()

    (other,) = tmp_path.iterdir()
    assert other.read_bytes() == lines
    os.close(console)
