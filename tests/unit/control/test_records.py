"""What launchers keep rebuilds the ledger of a coordinator that is gone."""

from copy import copy

from hypothesis import given, strategies as st

from dssync.control import messages as m
from dssync.control.ledger import Ledger, committed_in
from dssync.control.records import CommitRecords
from dssync.control.takeover import Adopt

TRACKS = (m.Track("", 5), m.Track("other", 3))
EPOCHS = 2
SYNC = m.SyncSettings("grid", 2, 1, "strict", 0)


def ledger() -> Ledger:
    made = Ledger()
    made.register(TRACKS, EPOCHS)
    return made


def said(records: CommitRecords, key: str, message: m.FromMemberBody) -> None:
    records.said(key, m.MEMBER.encode_text(message))


def told(records: CommitRecords, key: str, message: m.ToMemberBody) -> None:
    records.told(key, m.TO_MEMBER.encode_text(message))


def test_a_strict_decision_is_kept_for_the_whole_group_until_a_ledger_covers_it() -> None:
    records, coordinator = CommitRecords(), ledger()
    mine, other = coordinator.take("a", 2), coordinator.take("b", 1)
    told(records, "a", m.Leases(0, mine))
    told(records, "a", m.Commit(0, 0, (*mine, *other)))
    assert records.report == m.LedgerReport(None, (0, 1, 2), (m.Held("a", ()),), ())

    coordinator.commit("a", mine)
    records.learn(m.LedgerNews(coordinator.state))
    assert records.report.committed == other

    coordinator.commit("b", other)
    records.learn(m.LedgerNews(coordinator.state))
    assert records.report.committed == ()


def test_what_others_committed_before_is_kept_with_a_decision() -> None:
    records = CommitRecords()

    told(records, "a", m.Commit(3, 0, (4,), earlier=(1, 2)))

    assert records.report.committed == (1, 2, 4)


def test_what_a_member_applied_by_itself_is_kept() -> None:
    records = CommitRecords()
    told(records, "a", m.Leases(0, (4, 5)))
    said(records, "a", m.Applied(3, 0, (4,)))

    held, alone = (m.Held("a", (5,)),), (m.Held("a", (4,)),)
    assert records.report == m.LedgerReport(None, (4,), held, (), alone=alone)


def test_a_member_that_is_gone_leaves_nothing_behind() -> None:
    records, coordinator = CommitRecords(), ledger()
    records.learn(m.LedgerNews(coordinator.state))
    before = {name: copy(each) for name, each in vars(records).items() if name != "ledger"}
    batches = coordinator.take("a", 2)
    told(records, "a", m.Leases(0, batches))
    said(records, "a", m.Applied(3, 0, batches))
    coordinator.commit("a", batches)
    records.gone("a")

    records.learn(m.LedgerNews(coordinator.state))

    assert {name: each for name, each in vars(records).items() if name != "ledger"} == before


def test_a_confirmation_is_reported_until_it_is_decided_or_given_up() -> None:
    confirm = m.Confirm(3, 0, (4,))
    for end in (m.Commit(3, 0, (4,)), m.Abandoned(3, 0), m.Applied(3, 0, ())):
        records = CommitRecords()
        said(records, "a", confirm)
        assert records.report.confirmed == (m.Confirmed("a", confirm),)

        said(records, "a", end) if type(end) in m.FromMemberBody.__args__ else told(
            records, "a", end
        )

        assert records.report.confirmed == ()


def test_a_member_that_enters_again_holds_nothing_but_its_commits_stay() -> None:
    records = CommitRecords()
    told(records, "a", m.Leases(0, (4, 5)))
    said(records, "a", m.Applied(3, 0, (4,)))

    said(records, "a", m.Enter((), SYNC, "a:1", 3))

    assert records.report == m.LedgerReport(None, (4,), (), (), alone=(m.Held("a", (4,)),))


def test_what_was_leased_to_a_former_life_is_not_held() -> None:
    records = CommitRecords()
    said(records, "a", m.Enter((), SYNC, "a:1", 3, generation=1))
    told(records, "a", m.Start(6, 0, False))
    told(records, "a", m.Leases(0, (4, 5)))
    assert records.report.held == ()

    told(records, "a", m.Start(7, 0, False, generation=1))
    told(records, "a", m.Leases(0, (6,)))

    assert records.report.held == (m.Held("a", (6,)),)


def test_what_is_leased_to_a_former_life_that_a_new_term_adopts_is_not_held() -> None:
    # It had reported before it entered again; the answer to that comes late.
    records = CommitRecords()
    said(records, "a", m.Enter((), SYNC, "a:1", 3, generation=1))
    told(records, "a", Adopt(6, 0, True, ()))
    told(records, "a", m.Leases(0, (4, 5)))
    assert records.report.held == ()

    told(records, "a", m.Start(7, 0, False, generation=1))

    assert records.report.held == ()


def test_what_a_member_committed_by_itself_when_it_was_out_already_is_not_kept() -> None:
    records, coordinator = CommitRecords(), ledger()
    told(records, "a", m.Leases(0, coordinator.take("a", 2)))
    said(records, "a", m.Applied(3, 0, (0,)))
    coordinator.release("a")

    records.learn(m.LedgerNews(coordinator.state, ("a",), 1))

    assert records.report.committed == ()


def test_what_a_member_says_to_have_committed_once_it_was_told_to_be_out_is_not_kept() -> None:
    # It had applied before it read that it is benched; the coordinator does not count that.
    records, coordinator = CommitRecords(), ledger()
    told(records, "a", m.Leases(0, coordinator.take("a", 2)))
    told(records, "a", m.Bench("lease"))
    coordinator.release("a")
    records.learn(m.LedgerNews(coordinator.state, ("a",), 1))

    said(records, "a", m.Applied(3, 0, (0,)))

    assert records.report.committed == ()


def test_what_a_member_committed_by_itself_counts_as_the_ledger_after_its_bench_tells() -> None:
    # It may enter again before the coordinator names it to be out, and is never named then.
    for bench in (True, False):
        records, coordinator = CommitRecords(), ledger()
        told(records, "a", m.Leases(0, coordinator.take("a", 2)))
        said(records, "a", m.Applied(3, 0, (0, 1)))
        coordinator.commit("a", (0,))
        coordinator.release("a")
        told(records, "a", m.Bench("deadline")) if bench else records.benched("a")
        assert records.report.committed == (0, 1)
        said(records, "a", m.Enter((), SYNC, "a:1", 3, generation=1))
        told(records, "a", m.Start(7, 0, False, generation=1))

        records.learn(m.LedgerNews(coordinator.state))

        assert records.report.committed == records.report.alone == ()


def test_what_another_member_commits_of_that_is_kept() -> None:
    records, coordinator = CommitRecords(), ledger()
    said(records, "a", m.Applied(3, 0, (0, 1)))
    told(records, "a", m.Bench("deadline"))
    told(records, "b", m.Leases(0, (0,)))
    said(records, "b", m.Applied(4, 0, (0,)))

    records.learn(m.LedgerNews(coordinator.state))

    assert records.report.committed == (0,)


def test_what_two_members_commit_none_has_committed_alone() -> None:
    # It was leased again, and the one that was out had not read that yet.
    for first, second in (("a", "b"), ("b", "a")):
        records = CommitRecords()
        said(records, first, m.Applied(3, 0, (0, 1)))
        said(records, second, m.Applied(4, 0, (0,)))

        assert records.report.committed == (0, 1)
        assert records.report.alone == (m.Held(first, (1,)),)


def test_a_member_that_is_let_in_again_is_out_no_longer_and_commits() -> None:
    records, coordinator = CommitRecords(), ledger()
    told(records, "a", m.Bench("lease"))
    records.learn(m.LedgerNews(coordinator.state, ("a", "b"), 1))
    said(records, "a", m.Enter((), SYNC, "a:1", 3, generation=1))
    told(records, "a", m.Start(6, 0, False))
    assert records.report.put_out == ("a", "b")

    told(records, "a", m.Start(7, 0, False, generation=1))
    told(records, "a", m.Leases(0, coordinator.take("a", 1)))
    said(records, "a", m.Applied(7, 0, (0,)))

    assert records.report.put_out == ("b",)
    assert records.report.committed == (0,)


def test_what_was_committed_while_nobody_led_is_not_kept_if_the_coordinator_comes_back() -> None:
    # It has members enter again, and leases to others what they held.
    records = CommitRecords()
    told(records, "a", m.Leases(0, (3, 4)))
    said(records, "a", m.Applied(3, 0, (3,)))
    records.said("a", m.MEMBER.encode_text(m.Applied(4, 0, (4,))), heard=False)

    records.discard_unheard()

    assert records.report.committed == (3,)
    assert records.report.alone == (m.Held("a", (3,)),)


def test_what_was_committed_while_nobody_led_counts_for_a_new_coordinator() -> None:
    records = CommitRecords()
    records.said("a", m.MEMBER.encode_text(m.Applied(4, 0, (4,))), heard=False)

    records.link(2)
    records.discard_unheard()

    assert records.report.committed == (4,)


def test_records_from_before_the_data_counted_anew_are_not_kept() -> None:
    records = CommitRecords()
    said(records, "a", m.Applied(3, 0, (0,)))

    records.learn(m.LedgerNews(ledger().state, (), 1, restarts=1))

    assert records.report.committed == ()


def test_records_of_a_history_that_was_given_up_end_with_the_first_ledger_of_another() -> None:
    records, coordinator = CommitRecords(), ledger()
    records.link(1)
    told(records, "a", m.Leases(0, (4, 5)))
    said(records, "a", m.Applied(3, 0, (4,)))
    records.link(2)
    assert (records.report.committed, records.report.term) == ((4,), 1)

    records.learn(m.LedgerNews(coordinator.state))

    assert (records.report.committed, records.report.term) == ((), 2)


@given(st.data())
def test_a_new_coordinator_counts_what_the_old_one_counted(data: st.DataObject) -> None:
    """However old the ledger that survives is, records and leases bring it up to date."""
    old, known = ledger(), ledger().state
    committed: set[int] = set()
    held: dict[str, set[int]] = {"a": set(), "b": set(), "c": set()}
    for _ in range(data.draw(st.integers(0, 25))):
        key = data.draw(st.sampled_from(sorted(held)))
        match data.draw(st.sampled_from(("take", "commit", "lose", "copy"))):
            case "take":
                held[key].update(
                    old.take(key, data.draw(st.integers(1, 3)), data.draw(st.integers(0, 1)))
                )
            case "commit":
                done = set(sorted(held[key])[:2])
                old.commit(key, done)
                held[key] -= done
                committed |= done
            case "lose":
                old.release(key)
                held[key].clear()
            case "copy":
                known = old.state

    new = Ledger.restored(known, committed, held)

    assert new.committed == old.committed == len(committed)
    assert new.available == old.available
    assert {b for b in range(new.total) if committed_in(new.state, b)} == committed
    for key, batches in held.items():
        new.commit(key, batches)
    left = [new.take("d", new.total, track) for track in range(2)]
    assert sorted((*left[0], *left[1])) == sorted(
        set(range(new.total)) - committed - set().union(*held.values())
    )
    assert new.repeated == 0


def test_tracks_are_numbered_one_after_the_other() -> None:
    made = ledger()

    assert made.take("a", 99, 1) == tuple(range(10, 16))
    assert made.take("a", 99, 0) == tuple(range(10))
    assert made.take("a", 1, 7) == ()
