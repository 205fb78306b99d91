"""Streams on their way to a file and the console."""

import os
from pathlib import Path

import pytest

from dssync.agent.tee import Tee


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
