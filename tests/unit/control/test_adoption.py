"""What a coordinator of a new term makes of the reports of its members."""

import pytest
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.adoption import Electorate
from dssync.control.coordinator import Coordinator
from dssync.control.events import (
    Connected,
    ControlSettings,
    Effect,
    Looked,
    Paused,
    Received,
    Send,
    Ticked,
)
from dssync.control.takeover import Adopt, Report, Verdict, Vote

SYNC = m.SyncSettings("allreduce", 4, 1, "relaxed", 0)
NOTHING = m.LedgerReport(None, (), (), ())
HELLO = m.Enter(("w float32 3",), SYNC, "address")
TEN_DONE = m.LedgerState(1, (m.TrackState("", 100, 12, (10, 11)),), 0)
A, B, C = "0.0.a", "1.0.b", "1.1.c"


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


def training(*votes: Vote, since: int = 1) -> Report:
    """The report of a member that takes part in round 5 next."""
    return replace(
        waiting(HELLO),
        member_since=since,
        started=True,
        next_round=5,
        known_round=5,
        applied_round=4,
        votes=votes,
    )


def confirmed(*batches: int) -> Vote:
    return Vote(5, 0, "train", (B, C), False, batches)


def ledger(
    *held: tuple[str, tuple[int, ...]],
    committed: tuple[int, ...] = (),
    put_out: tuple[str, ...] = (),
    state: m.LedgerState = TEN_DONE,
    term: int = 1,
    number: int = 1,
    restarts: int = 0,
) -> m.LedgerReport:
    """What a launcher says of the data."""
    holds = tuple(m.Held(key, batches) for key, batches in held)
    return m.LedgerReport(state, committed, holds, (), (), put_out, number, term, restarts)


def taken_over(
    ledgers: dict[int, m.LedgerReport],
    reports: dict[str, Report],
    *,
    over: bool = False,
    draining: int | None = None,
    desired: int = 2,
) -> tuple[Coordinator, list[Effect]]:
    """A coordinator of term 2 that has heard these launchers and members, and what it does."""
    everybody = frozenset(f"pod{slot}" for slot in ledgers)
    settings = ControlSettings(desired, 1)
    coordinator = Coordinator(2, settings, Electorate(everybody, everybody, over))
    for slot in ledgers:
        coordinator.handle(Connected(m.Hello(slot, f"pod{slot}", 1, ("", "", ""))), 0.0)
    for slot, report in ledgers.items():
        keys = tuple(key for key in reports if key.startswith(f"{slot}."))
        coordinator.handle(Received(slot, m.Standing(keys, len(keys), report)), 0.0)
        if slot == draining:
            coordinator.handle(Received(slot, m.Drain()), 0.0)
    effects: list[Effect] = []
    for key, said in reports.items():
        body = m.FromMember(key, m.MEMBER.encode_text(said))
        effects += coordinator.handle(Received(int(key[0]), body), 0.1)
    return coordinator, effects


def told(
    effects: list[Effect], kind: type[Adopt | m.Assign | m.Bench | m.Completed | m.Fetch | m.Start]
) -> dict[str, object]:
    """What members are told, of one kind, by key."""
    sent = [each.message for each in effects if isinstance(each, Send)]
    bodies = [(x.member, m.TO_MEMBER.decode(x.body)) for x in sent if isinstance(x, m.ToMember)]
    return {key: body for key, body in bodies if isinstance(body, kind)}


def test_a_member_whose_decision_was_lost_goes_on_with_what_it_confirmed() -> None:
    # The mates' launcher has the decision, which names the batches of the whole group.
    ledgers = {0: ledger(committed=(10, 11)), 1: ledger((B, (10,)), (C, (11,)))}
    reports = {A: training(), B: training(confirmed(10)), C: training(confirmed(11))}

    coordinator, effects = taken_over(ledgers, reports)

    adopted = told(effects, Adopt)
    assert adopted.keys() == {A, B, C}
    assert adopted[B].commits == (Verdict(5, 0, (10,)),)  # type: ignore[attr-defined]
    assert coordinator.ledger.committed == 12


def test_a_member_that_was_put_out_enters_again_whatever_it_confirmed() -> None:
    ledgers = {0: ledger(committed=(10,), put_out=(B,), number=2), 1: ledger((B, (10,)))}

    _, effects = taken_over(ledgers, {A: training(), B: training(confirmed(10))})

    assert told(effects, Adopt).keys() == {A}
    assert told(effects, m.Bench).keys() == {B}


def test_a_member_that_was_put_out_and_let_in_again_goes_on() -> None:
    ledgers = {0: ledger(put_out=(B,), number=3), 1: ledger((B, (10,)), number=4)}

    _, effects = taken_over(ledgers, {A: training(), B: training()})

    assert told(effects, Adopt).keys() == {A, B}


def test_a_member_that_was_let_in_again_after_the_latest_copy_goes_on() -> None:
    # Its launcher has heard so; the copy that says so to everybody was lost with the coordinator.
    ledgers = {0: ledger(put_out=(B,), number=3), 1: ledger((B, (10,)), number=3)}

    _, effects = taken_over(ledgers, {A: training(), B: training()})

    assert told(effects, Adopt).keys() == {A, B}


def test_a_member_that_holds_what_is_committed_and_has_not_confirmed_it_enters_again() -> None:
    ledgers = {0: ledger(committed=(10,)), 1: ledger((B, (10,)))}

    _, effects = taken_over(ledgers, {A: training(), B: training()})

    assert told(effects, m.Bench).keys() == {B}


def test_what_was_on_its_way_to_a_member_that_had_died_puts_nobody_out() -> None:
    ledgers = {0: ledger(("0.9.dead", (10,)), (A, (11,))), 1: ledger((B, (10,)))}

    _, effects = taken_over(ledgers, {A: training(), B: training()})

    assert told(effects, Adopt).keys() == {A, B}


def test_a_member_of_another_side_puts_nobody_out_and_commits_nothing() -> None:
    # Slot 0 comes back from a side whose coordinator was deposed; there, 10 and 11 were done.
    ledgers = {
        0: ledger((A, (11,)), committed=(10,), term=1),
        1: ledger((B, (10,)), (C, (11,)), term=2),
    }
    reports = {A: training(since=1), B: training(since=2), C: training(since=2)}

    coordinator, effects = taken_over(ledgers, reports)

    assert told(effects, Adopt).keys() == {B, C}
    assert coordinator.ledger.committed == 10


def test_launchers_have_the_ledger_before_members_hear_what_is_committed_with_them() -> None:
    ledgers = {0: ledger(committed=(10, 11)), 1: ledger((B, (10,)))}

    _, effects = taken_over(ledgers, {A: training(), B: training(confirmed(10))})

    sent = [each for each in effects if isinstance(each, Send) and each.slot == 1]
    kinds = [type(each.message) for each in sent]
    assert kinds.index(m.LedgerNews) < kinds.index(m.ToMember)


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


@pytest.mark.parametrize(("applied", "committed"), [(-1, 0), (4, 10)])
def test_where_nobody_goes_on_rounds_do_and_data_count_for_who_brings_its_state(
    applied: int, committed: int
) -> None:
    coordinator, effects = taken_over({0: ledger(put_out=(A,))}, {A: training()}, desired=1)
    assert told(effects, m.Bench).keys() == {A}

    hello = m.FromMember(A, m.MEMBER.encode_text(replace(HELLO, applied_round=applied)))
    effects = coordinator.handle(Received(0, hello), 0.2)

    assert told(effects, m.Start) == {A: m.Start(6, 0, True)}
    assert coordinator.ledger.committed == committed


def test_a_launcher_that_comes_late_brings_the_only_state_with_its_ledger() -> None:
    coordinator, _ = taken_over({0: NOTHING}, {A: waiting(HELLO)})
    coordinator.handle(Connected(m.Hello(1, "pod1", 1, ("", "", ""))), 0.4)

    known = ledger((B, (11,)), committed=(10,))
    effects = coordinator.handle(Received(1, m.Standing((B,), 1, known)), 0.5)
    report = m.FromMember(B, m.MEMBER.encode_text(training()))
    effects += coordinator.handle(Received(1, report), 0.6)

    assert told(effects, Adopt).keys() == {B}
    assert told(effects, m.Fetch).keys() == {A}
    assert coordinator.ledger.committed == 11


def test_a_launcher_that_comes_when_a_world_forms_already_is_too_late() -> None:
    coordinator, _ = taken_over({0: ledger()}, {A: training()})
    coordinator.handle(Connected(m.Hello(1, "pod1", 1, ("", "", ""))), 0.4)

    effects = coordinator.handle(Received(1, m.Standing((B,), 1, ledger())), 0.5)
    report = m.FromMember(B, m.MEMBER.encode_text(training()))
    effects += coordinator.handle(Received(1, report), 0.6)

    assert told(effects, m.Bench).keys() == {B}


def test_a_copy_from_before_the_data_began_to_count_anew_says_nothing() -> None:
    anew = m.LedgerState(1, (m.TrackState("", 100, 2, (0, 1)),), 0)
    ledgers = {0: ledger((A, (0, 1)), state=anew, restarts=1), 1: ledger()}

    coordinator, effects = taken_over(ledgers, {A: training()})

    assert told(effects, Adopt).keys() == {A}
    assert coordinator.ledger.committed == 0


def test_what_a_member_that_was_put_out_committed_by_itself_puts_nobody_else_out() -> None:
    # The last coordinator gave B up and leased 10 to A; B went on for a moment.
    behind = replace(ledger(committed=(10,)), alone=(m.Held(B, (10,)),))
    ledgers = {0: ledger((A, (10,)), put_out=(B,), number=2), 1: behind}

    coordinator, effects = taken_over(ledgers, {A: training(), B: training()})

    assert told(effects, Adopt).keys() == {A}
    assert told(effects, m.Bench).keys() == {B}
    assert coordinator.ledger.committed == 10


def test_what_a_member_that_the_last_term_went_on_without_committed_by_itself_counts_not() -> None:
    # C stood still when term 2 began, and went on alone when that one's coordinator was lost, too.
    ledgers = {
        0: ledger((A, (11,)), term=2),
        1: replace(ledger(committed=(10,), term=2), alone=(m.Held(C, (10,)),)),
    }
    reports = {A: training(since=2), B: training(since=2), C: training(since=1)}

    coordinator, effects = taken_over(ledgers, reports)

    assert told(effects, Adopt).keys() == {A, B}
    assert coordinator.ledger.committed == 10
    assert coordinator.ledger.available == 89


def test_copies_of_the_ledger_say_from_the_first_one_on_who_is_out() -> None:
    # Else a term that dies before it adopts anybody hides who was put out in the one before.
    ledgers = {0: ledger((A, (11,)), put_out=(B,), number=2), 1: ledger()}

    _, effects = taken_over(ledgers, {A: training(), B: training(), C: training(since=0)})

    sent = [each.message for each in effects if isinstance(each, Send)]
    first = next(each for each in sent if isinstance(each, m.LedgerNews))
    assert first.put_out == (B, C)


def test_a_pod_that_takes_the_slot_of_one_that_drains_does_not_drain() -> None:
    both = frozenset({"pod0", "pod1"})
    coordinator = Coordinator(2, ControlSettings(1, 1), Electorate(both, both))
    for uid in ("pod0", "other"):
        coordinator.handle(Connected(m.Hello(0, uid, 1, ("", "", ""))), 0.0)
        if uid == "pod0":
            coordinator.handle(Received(0, m.Drain()), 0.0)

    coordinator.handle(Ticked(), 5.0)

    assert coordinator.gathering is None
    assert not coordinator.roster.pods[0].draining


def test_who_stood_still_while_reports_came_in_adopts_nobody_before_it_has_looked() -> None:
    coordinator = Coordinator(2, ControlSettings(1, 1), Electorate(frozenset({"pod0"})))
    coordinator.handle(Connected(m.Hello(0, "pod0", 1, ("", "", ""))), 0.0)
    coordinator.handle(Looked(), 0.0)
    coordinator.handle(Received(0, m.Standing((A,), 1, ledger((A, (10,))))), 0.0)
    coordinator.handle(Paused(), 0.1)
    report = m.FromMember(A, m.MEMBER.encode_text(training()))

    effects = coordinator.handle(Received(0, report), 0.1)
    # This one may have begun before, when nobody else had won a later term.
    effects += coordinator.handle(Looked(), 0.2)
    early = told(effects, Adopt)
    effects = coordinator.handle(Looked(), 0.3)

    assert early == {}
    assert told(effects, Adopt).keys() == {A}


FINAL = Vote(5, 0, "final", (A, B), True, ())


def test_a_job_that_the_record_calls_done_goes_on_with_nobody_who_lacks_its_last_values() -> None:
    ended = replace(training(FINAL), next_round=6, applied_round=5)

    coordinator, effects = taken_over(
        {0: ledger(), 1: ledger()}, {A: ended, B: training()}, over=True
    )

    assert coordinator.completed
    assert told(effects, Adopt).keys() == told(effects, m.Completed).keys() == {A}
    assert told(effects, m.Bench).keys() == {B}
    assert not told(effects, m.Assign)


def test_the_last_pod_of_a_job_that_the_record_calls_done_drains_without_a_flush() -> None:
    ended = replace(training(FINAL), next_round=6, applied_round=5)

    _, effects = taken_over({0: ledger()}, {A: ended}, over=True, draining=0)

    assert told(effects, m.Completed).keys() == {A}
    assert not told(effects, m.Assign)


def test_whoever_is_left_of_a_job_that_the_record_calls_done_is_told_so() -> None:
    coordinator, effects = taken_over({1: ledger()}, {B: training()}, over=True)
    assert told(effects, m.Bench).keys() == {B}
    assert Send(1, m.JobCompleted()) in effects

    hello = m.FromMember(B, m.MEMBER.encode_text(replace(HELLO, applied_round=4)))
    effects = coordinator.handle(Received(1, hello), 0.2)

    assert told(effects, m.Completed).keys() == {B}
