"""Every batch is in exactly one place: committed, leased, or available."""

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dssync.control.ledger import Ledger
from dssync.control.messages import Track
from dssync.errors import ProtocolError

MEMBERS = st.sampled_from(("a", "b", "c"))


class LedgerMachine(RuleBasedStateMachine):
    """Any interleaving of what members do, beside the simplest model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.ledger.register((Track("", 7),), 3)
        self.held: dict[str, set[int]] = {"a": set(), "b": set(), "c": set()}
        self.done: set[int] = set()
        self.said = 0

    @rule(member=MEMBERS, count=st.integers(0, 5))
    def take(self, member: str, count: int) -> None:
        available = self.ledger.available
        taken = self.ledger.take(member, count)
        assert len(taken) == min(count, available)
        assert not self.done.intersection(taken)
        assert all(not held.intersection(taken) for held in self.held.values())
        self.held[member].update(taken)

    @rule(member=MEMBERS, count=st.integers(0, 5))
    def commit(self, member: str, count: int) -> None:
        batches = sorted(self.held[member])[:count]
        self.ledger.commit(member, batches)
        self.held[member].difference_update(batches)
        self.done.update(batches)
        self.said += len(batches)

    @rule(member=MEMBERS, batch=st.integers(0, 20))
    def commit_without_a_lease(self, member: str, batch: int) -> None:
        if batch not in self.held[member]:
            repeated = self.ledger.repeated
            self.ledger.commit(member, (batch,))
            assert self.ledger.repeated == repeated + 1
            self.said += 1

    @rule(member=MEMBERS)
    def release(self, member: str) -> None:
        self.ledger.fresh_holes = False
        assert self.ledger.release(member) == len(self.held[member])
        assert self.ledger.fresh_holes == bool(self.held[member])
        self.held[member].clear()

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        held = sum(len(each) for each in self.held.values())
        assert self.ledger.committed == len(self.done)
        assert self.ledger.committed + held + self.ledger.available == self.ledger.total
        assert self.ledger.committed + self.ledger.repeated == self.said
        assert self.ledger.complete == (len(self.done) == 21)


TestLedger = LedgerMachine.TestCase
TestLedger.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_holes_are_leased_before_new_batches_lowest_first() -> None:
    ledger = Ledger()
    ledger.register((Track("", 6),), 1)
    ledger.take("a", 3)
    ledger.commit("a", (1,))
    ledger.release("a")

    assert ledger.take("b", 4) == (0, 2, 3, 4)


def test_nothing_is_available_or_complete_before_the_run_has_a_size() -> None:
    ledger = Ledger()

    assert ledger.take("a", 3) == ()
    assert (ledger.total, ledger.complete, ledger.progress) == (0, False, 0.0)


def test_progress_is_the_committed_fraction() -> None:
    ledger = Ledger()
    ledger.register((Track("", 4),), 2)
    ledger.commit("a", ledger.take("a", 2))

    assert ledger.progress == 0.25


def test_members_must_agree_on_the_size_of_the_run() -> None:
    ledger = Ledger()
    ledger.register((Track("", 4),), 2)
    ledger.register((Track("", 4),), 2)

    with pytest.raises(ProtocolError, match=r"5 batches and 2 epochs here but 4 .* and 2 epochs"):
        ledger.register((Track("", 5),), 2)


@given(st.integers(-3, 0), st.integers(-3, 3))
def test_a_run_without_data_is_refused(nothing: int, something: int) -> None:
    for size in ((nothing, something), (something, nothing)):
        with pytest.raises(ProtocolError, match="at least 1 of each"):
            Ledger().register((Track("", size[0]),), size[1])
