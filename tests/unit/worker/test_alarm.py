"""A timer that is waited for like a socket."""

import select

from dssync.worker.alarm import Alarm


def test_an_alarm_goes_off_once_after_it_was_set() -> None:
    alarm = Alarm(0.001)
    assert select.select([alarm], [], [], 0) == ([], [], [])
    alarm.set()

    assert select.select([alarm], [], [], 30)[0] == [alarm]

    alarm.quiet()
    assert select.select([alarm], [], [], 0) == ([], [], [])


def test_an_alarm_that_is_set_again_can_be_quieted() -> None:
    alarm = Alarm(3600.0)
    alarm.set()

    alarm.quiet()

    assert select.select([alarm], [], [], 0) == ([], [], [])
