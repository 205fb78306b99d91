"""What a worker's link holds back, and what makes it speak."""

import json
import os
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from dssync.contract import ENV_LINK_FD
from dssync.control import messages as m
from dssync.control.transport import frame
from dssync.errors import UsageError
from dssync.worker import link as module
from dssync.worker.alarm import Alarm
from dssync.worker.link import Link, Setup, open_link

MEMBER = f"0.0.{'0' * 32}"
APPLIED = m.Applied(3, 0, ())


class Wire:
    """Keeps what a link sends."""

    def __init__(self) -> None:
        self.sent: list[object] = []
        self.alarm = Alarm(3600.0)
        self.link = Link(Setup(MEMBER), self.take, lambda _: None, self.alarm)

    def take(self, messages: list[bytes]) -> None:
        self.sent += [m.MEMBER.decode(each) for each in messages]


def test_what_is_held_goes_out_before_the_next_message() -> None:
    wire = Wire()
    wire.link.hold(APPLIED)
    assert wire.sent == []

    wire.link.send(m.AskFlush())

    assert wire.sent == [APPLIED, m.AskFlush()]


def test_what_is_held_goes_out_before_news_is_answered() -> None:
    wire = Wire()
    wire.link.hold(APPLIED)

    wire.link.receive(m.TO_MEMBER.encode(m.Abandon(4, 0)))

    assert wire.sent == [APPLIED, m.Abandoned(4, 0)]


def test_what_is_held_goes_out_once() -> None:
    wire = Wire()
    wire.link.hold(APPLIED)

    wire.link.send_held()
    wire.link.send_held()

    assert wire.sent == [APPLIED]


def test_without_an_alarm_nothing_is_held() -> None:
    sent: list[bytes] = []
    link = Link(Setup(MEMBER), sent.extend, lambda _: None)

    link.hold(APPLIED)

    assert [m.MEMBER.decode(each) for each in sent] == [APPLIED]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[socket.socket, str]]:
    """Return the end of a launcher that has said who the worker is, and the worker's descriptor."""
    monkeypatch.setattr(module, "_opened", False)
    launcher, worker = socket.socketpair()
    with launcher, worker:
        launcher.sendall(frame(b"S" + json.dumps(asdict(Setup(MEMBER))).encode()))
        yield launcher, str(worker.fileno())


@pytest.fixture
def descriptor(ends: tuple[socket.socket, str]) -> str:
    """Return the descriptor of a link whose launcher has said who the worker is."""
    return ends[1]


@pytest.mark.timeout(60)
def test_a_link_is_opened_once(descriptor: str) -> None:
    environ = {ENV_LINK_FD: descriptor}
    assert open_link(environ).setup.member == MEMBER

    for tried in (environ, {ENV_LINK_FD: descriptor}):
        with pytest.raises(UsageError, match=r"one GroupSync.*pass one module"):
            open_link(tried)


def test_a_worker_whose_launcher_has_ended_says_no_more_and_goes_no_further(
    ends: tuple[socket.socket, str],
) -> None:
    launcher, descriptor = ends
    link = open_link({ENV_LINK_FD: descriptor})
    launcher.close()

    speaker = threading.Thread(target=link.send, args=(m.AskFlush(),), daemon=True)
    speaker.start()

    while speaker.is_alive() and where(speaker) != "_await_death":
        os.sched_yield()
    assert speaker.is_alive()


def where(thread: threading.Thread) -> str:
    """Return which function of the link a thread is in."""
    frame = sys._current_frames().get(thread.ident or 0)
    while frame is not None and frame.f_code.co_filename != module.__file__:
        frame = frame.f_back
    return "" if frame is None else frame.f_code.co_name


def test_what_a_worker_starts_is_told_of_no_link(descriptor: str) -> None:
    environ = {ENV_LINK_FD: descriptor, "HOME": "/"}

    open_link(environ)

    assert environ == {"HOME": "/"}


@pytest.mark.parametrize("closed", [True, False])
def test_a_descriptor_that_is_no_link_is_named_and_the_process_trains_alone(
    capfd: pytest.CaptureFixture[str], descriptor: str, closed: bool
) -> None:
    other = os.open(os.devnull, os.O_RDONLY)
    if closed:
        os.close(other)

    link = open_link({ENV_LINK_FD: str(other)})

    assert link.setup.host == ""
    said = capfd.readouterr().err
    assert said.startswith(f"dssync: {ENV_LINK_FD} is {other},")
    assert "alone" in said
    if not closed:
        os.close(other)
