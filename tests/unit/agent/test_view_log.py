"""The coordinator's part of the view log: whose it is, and a disk that is full or fails."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dssync.agent import history
from dssync.agent.history import ViewLog
from dssync.agent.host import CoordinatorHost
from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings, Received
from dssync.control.view import View
from dssync.schedule import Place
from unit.control.job import MODEL, SYNC

FIRST = View.first(1, [("0.0.a", Place())])
SECOND = View.first(1, [("0.0.a", Place())], 2)


def test_a_log_is_for_its_user_alone(tmp_path: Path) -> None:
    log = ViewLog(tmp_path / "log")

    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
    log.close()


def fails(*arguments: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def writes_half(file: int, line: bytes, write: Callable[[int, bytes], int] = os.write) -> int:
    return write(file, line[: len(line) // 2])


@pytest.mark.parametrize("broken", [fails, writes_half])
def test_a_log_that_cannot_be_written_ends_and_says_so_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[..., int]
) -> None:
    log = ViewLog(tmp_path / "log")
    monkeypatch.setattr(history.os, "write", broken)
    log.viewed(FIRST)
    monkeypatch.undo()
    written = (tmp_path / "log").read_bytes()

    log.viewed(SECOND)

    assert "No space left" in log.take_trouble()
    assert log.take_trouble() == ""
    assert (tmp_path / "log").read_bytes() == written, "nothing follows what is cut off"
    log.close()


def test_a_log_that_cannot_be_made_durable_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ViewLog(tmp_path / "log")
    monkeypatch.setattr(history.os, "fsync", fails)

    log.viewed(FIRST)
    log.sync()
    log.viewed(SECOND)
    log.close()

    assert "No space left" in log.take_trouble()
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1


async def test_members_are_told_though_the_log_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ViewLog(tmp_path / "log")
    coordinator = Coordinator(1, ControlSettings(desired=1, minimum=1))
    host = CoordinatorHost(coordinator, lambda note: None, log)
    started = asyncio.Event()

    def hear(message: m.ToLauncher) -> None:
        if isinstance(message, m.ToMember) and "Start" in message.body:
            started.set()

    host.attach(m.Hello(0, "first", 1, ("", "", "")), hear)
    enter = m.MEMBER.encode_text(m.Enter(MODEL, SYNC, "a:1", -1))
    monkeypatch.setattr(history.os, "write", fails)

    host.handle(Received(0, m.FromMember("0.0.a", enter)))

    await asyncio.wait_for(started.wait(), 10)
    await host.close()
