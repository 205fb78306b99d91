"""Whatever well-formed messages members send, in whatever order, the coordinator stands."""

import contextlib

import msgspec
import pytest
from hypothesis import given, settings, strategies as st

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.events import Connected, ControlSettings, Disconnected, Received, Ticked
from dssync.control.ledger import Ledger
from dssync.control.takeover import Report, Vote
from dssync.errors import ProtocolError
from unit.control.job import MODEL, SYNC, JobOnPaper

KEYS = ("0.0.a", "0.1.b", "1.0.c", "2.0.d")
NUMBERS = st.sampled_from((-1, 0, 1, 2, 3, 10**12))
SYNCS = st.sampled_from((SYNC, SYNC, m.SyncSettings("none", -1, 1, "strict", 0)))
ENTER = st.builds(m.Enter, st.just(MODEL), SYNCS, st.just("a:1"), st.sampled_from((-1, 0, 5)))

REPORT = st.builds(
    Report,
    term=NUMBERS,
    member_since=NUMBERS,
    enter=ENTER.map(m.MEMBER.encode_text) | st.sampled_from(("", "x")),
    started=st.booleans(),
    next_round=NUMBERS,
    known_round=NUMBERS,
    applied_round=NUMBERS,
    weighted=st.booleans(),
    last_round=st.none() | NUMBERS,
    votes=st.lists(
        st.builds(
            Vote,
            NUMBERS,
            NUMBERS,
            st.sampled_from(("train", "final")),
            st.lists(st.sampled_from(KEYS), max_size=2).map(tuple),
            st.booleans(),
            st.lists(NUMBERS, max_size=3).map(tuple),
        ),
        max_size=2,
    ).map(tuple),
    donor=st.sampled_from((*KEYS, "")),
    register=st.sampled_from(("", "x", m.MEMBER.encode_text(m.Register((m.Track("", -1),), 0)))),
    takes=st.just(()) | st.just((m.MEMBER.encode_text(m.Take(3, 0)),)),
    flush_asked=st.booleans(),
    stop_asked=st.booleans(),
    completed=st.booleans(),
)


def any_message() -> st.SearchStrategy[object]:
    """A message of a member with small, likely or absurd numbers in it."""
    tracks = st.lists(st.builds(m.Track, st.sampled_from(("", "x")), NUMBERS), max_size=2)
    for_type = {
        int: NUMBERS,
        str: st.sampled_from((*KEYS, "", "x")),
        bool: st.booleans(),
        tuple[m.Track, ...]: tracks.map(tuple),
        m.LedgerState | None: st.none() | st.builds(m.LedgerState, NUMBERS, st.just(()), NUMBERS),
    }
    kinds = [k for k in m.FromMemberBody.__args__ if k not in (m.Enter, Report)]
    return ENTER | REPORT | st.one_of(*(_instances(kind, for_type) for kind in kinds))


def _instances(
    kind: type, for_type: dict[object, st.SearchStrategy[object]]
) -> st.SearchStrategy[object]:
    fields = {
        field.name: for_type.get(field.type, st.lists(NUMBERS, max_size=3).map(tuple))
        for field in msgspec.structs.fields(kind)
    }
    return st.builds(kind, **fields)


EVENTS = st.one_of(
    st.tuples(st.sampled_from(KEYS), any_message()),
    st.tuples(
        st.sampled_from(KEYS),
        st.sampled_from((m.Drain(), m.Exited(KEYS[0], 1, True), m.Exited(KEYS[2], 1, False))),
    ),
    st.sampled_from(("tick", "connect", "disconnect")).map(lambda what: (what, None)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_no_sequence_of_messages_breaks_the_coordinator(
    events: list[tuple[str, object]],
) -> None:
    job = JobOnPaper(desired=2)
    job.connect(0, workers=2)
    job.connect(1)
    job.enters("0.0.a", "0.1.b", "1.0.c")

    for number, (name, message) in enumerate(events):
        handle(job, name, message, now=number * 0.3)
        check(job.coordinator.ledger)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KEYS), any_message() | st.just(None)), max_size=30))
def test_whatever_is_said_while_reports_are_gathered_the_term_begins(
    said: list[tuple[str, object]],
) -> None:
    everybody = frozenset(f"pod{slot}" for slot in range(3))
    coordinator = Coordinator(2, ControlSettings(2, 1), Electorate(everybody, everybody))
    for slot in range(3):
        coordinator.handle(Connected(m.Hello(slot, f"pod{slot}", 2, ("", "", ""))), 0.0)
        keys = tuple(key for key in KEYS if key.startswith(f"{slot}."))
        standing = m.Standing((*keys, "none"), 2, m.LedgerReport(None, (), (), ()))
        coordinator.handle(Received(slot, standing), 0.0)

    for key, message in said:
        body = "nonsense" if message is None else m.MEMBER.encode_text(message)
        with contextlib.suppress(ProtocolError):
            coordinator.handle(Received(int(key[0]), m.FromMember(key, body)), 0.1)
    coordinator.handle(Ticked(), 10.0)

    assert coordinator.gathering is None
    check(coordinator.ledger)


@pytest.mark.parametrize(
    "nonsense",
    [
        m.FromMember("0.0.a", "nonsense"),
        m.FromMember("1.0.c", m.MEMBER.encode_text(m.Take(1, 0))),
        m.FromMember("key", m.MEMBER.encode_text(m.Take(1, 0))),
        m.Exited("1.0.c", 0, False),
    ],
)
def test_nonsense_is_refused_while_reports_are_gathered(nonsense: m.FromLauncher) -> None:
    everybody = frozenset(("pod0", "pod1"))
    coordinator = Coordinator(2, ControlSettings(1, 1), Electorate(everybody, everybody))
    coordinator.handle(Connected(m.Hello(0, "pod0", 1, ("", "", ""))), 0.0)

    with pytest.raises(ProtocolError):
        coordinator.handle(Received(0, nonsense), 0.1)
    coordinator.handle(Ticked(), 10.0)

    assert coordinator.gathering is None


def handle(job: JobOnPaper, name: str, message: object, now: float) -> None:
    hello = m.Hello(int(now) % 3, "pod", 1, ("", "", ""))
    event: object
    match name:
        case "tick":
            event = Ticked()
        case "connect":
            event = Connected(hello)
        case "disconnect":
            event = Disconnected(hello.slot, "pod")
        case key if isinstance(message, m.Drain | m.Exited):
            event = Received(int(key[0]), message)
        case key:
            event = Received(int(key[0]), m.FromMember(key, m.MEMBER.encode_text(message)))
    try:
        effects = job.coordinator.handle(event, now)  # type: ignore[arg-type]
    except ProtocolError:
        return
    assert len(effects) < 200


def check(ledger: Ledger) -> None:
    assert 0 <= ledger.committed <= ledger.total
    assert ledger.available >= 0
