"""What a worker's link holds back, and what makes it speak."""

from dssync.control import messages as m
from dssync.worker.alarm import Alarm
from dssync.worker.link import Link, Setup

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
