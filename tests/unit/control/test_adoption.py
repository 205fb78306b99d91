"""What a coordinator of a new term makes of the reports of its members."""

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, ControlSettings, Received, Send
from dssync.control.takeover import Report

SYNC = m.SyncSettings("allreduce", 4, 1, "relaxed", 0)
NOTHING = m.LedgerReport(None, (), (), ())


def waiting(hello: m.Enter) -> Report:
    """The report of a member that has said hello and was not let in yet."""
    return Report(
        term=2,
        member_since=0,
        enter=m.MEMBER.encode_text(hello),
        started=False,
        next_round=0,
        known_round=-1,
        applied_round=hello.applied_round,
        weighted=True,
        last_round=None,
        votes=(),
        donor="",
        register="",
        takes=(),
        flush_asked=False,
        stop_asked=False,
        completed=False,
    )


def test_who_can_read_checkpoints_is_still_asked_to_under_a_new_coordinator() -> None:
    settings = ControlSettings(desired=1, minimum=1)
    coordinator = Coordinator(2, settings, Electorate(frozenset({"pod"}), frozenset()))
    hello = m.Enter(("w float32 3",), SYNC, "address", resumes=True)
    coordinator.handle(Connected(m.Hello(0, "pod", 1, ("", "", ""))), 0.0)
    coordinator.handle(Received(0, m.Standing(("0.0.a",), 1, NOTHING)), 0.0)

    report = m.FromMember("0.0.a", m.MEMBER.encode_text(waiting(hello)))
    effects = coordinator.handle(Received(0, report), 0.1)

    told = [each.message for each in effects if isinstance(each, Send)]
    bodies = [m.TO_MEMBER.decode(each.body) for each in told if isinstance(each, m.ToMember)]
    assert bodies == [m.Resume()]
