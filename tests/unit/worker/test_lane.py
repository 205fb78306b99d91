"""In which order NCCL is called, whatever happens to the groups."""

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dssync.errors import CommunicatorError
from dssync.worker.lane import Abort, Destroy, Effect, Exit, Finish, Lane, Launch


def lane_of(*groups: str) -> Lane:
    lane = Lane(abort_seconds=5.0)
    for name in groups:
        lane.open(name)
    return lane


def test_buckets_of_one_group_are_in_flight_together() -> None:
    lane = lane_of("a")
    numbers = [lane.submit("a"), lane.submit("a")]

    assert lane.advance(0.0) == [Launch("a", number) for number in numbers]


def test_another_groups_operation_waits_until_nothing_is_in_flight() -> None:
    lane = lane_of("a", "b")
    first, second = lane.submit("a"), lane.submit("b")
    assert lane.advance(0.0) == [Launch("a", first)]
    assert lane.advance(1.0) == []

    assert lane.ended(first, "") == [Finish(first, "")]

    assert lane.advance(2.0) == [Launch("b", second)]


def test_a_group_given_up_fails_what_waits_at_once_and_what_is_in_flight_when_aborted() -> None:
    lane = lane_of("a", "b")
    running = lane.submit("a")
    lane.advance(0.0)
    waiting = lane.submit("b")

    gone = lane.abandon("b")
    assert gone == [Finish(waiting, "communicator b was given up")]
    assert lane.advance(1.0) == [], "b has nothing to release, so it does not disturb a"
    lane.abandon("a")
    assert lane.advance(1.0) == [Abort("a")]

    assert lane.aborted("a") == [
        Finish(running, "communicator a was given up while it was summing"),
        Destroy("a"),
    ]
    assert lane.advance(2.0) == [Abort("b")]


def test_a_kernel_that_an_abort_ended_did_not_succeed() -> None:
    lane = lane_of("a")
    number = lane.submit("a")
    lane.advance(0.0)
    lane.abandon("a")
    lane.advance(0.0)

    assert lane.ended(number, "") == []
    assert [type(effect) for effect in lane.aborted("a")] == [Finish, Destroy]


def test_nothing_is_launched_during_an_abort() -> None:
    lane = lane_of("a", "b")
    lane.abandon("a")
    assert lane.advance(0.0) == [Abort("a")]
    number = lane.submit("b")

    assert lane.advance(1.0) == []
    lane.aborted("a")
    assert lane.advance(2.0) == [Launch("b", number)]


def test_an_abort_past_its_deadline_ends_the_process_once() -> None:
    lane = lane_of("a")
    lane.abandon("a")
    lane.advance(10.0)
    assert lane.deadline == 15.0

    assert lane.advance(14.9) == []
    assert lane.advance(15.0) == [Exit("a")]
    assert lane.advance(16.0) == []


def test_a_closed_group_is_destroyed_after_its_operations_and_anybody_elses() -> None:
    lane = lane_of("a", "b")
    closed, other = lane.submit("a"), lane.submit("b")
    lane.advance(0.0)
    lane.close("a")
    lane.ended(closed, "")

    assert lane.advance(1.0) == [Destroy("a"), Launch("b", other)]


@pytest.mark.parametrize("way", ["close", "abandon"])
def test_a_group_given_up_takes_no_operation(way: str) -> None:
    lane = lane_of("a")
    getattr(lane, way)("a")

    with pytest.raises(CommunicatorError, match="communicator a was given up"):
        lane.submit("a")


class Chaos(RuleBasedStateMachine):
    """Any order of events: each operation ends once, and the device is never shared."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = Lane(abort_seconds=5.0)
        self.now = 0.0
        self.names: list[str] = []
        self.waiting: dict[int, str] = {}
        self.in_flight: dict[int, str] = {}
        self.aborting: str | None = None
        self.destroyed: set[str] = set()

    @rule()
    def build(self) -> None:
        self.names.append(f"group-{len(self.names)}")
        self.lane.open(self.names[-1])

    @precondition(lambda self: self.names)
    @rule(data=st.data())
    def submit(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(self.names))
        try:
            self.waiting[self.lane.submit(name)] = name
        except CommunicatorError:
            return
        self.step([])

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data(), error=st.sampled_from(["", "remote error"]))
    def end(self, data: st.DataObject, error: str) -> None:
        number = data.draw(st.sampled_from(sorted(self.in_flight)))
        self.step(self.lane.ended(number, error))

    @precondition(lambda self: self.names)
    @rule(data=st.data(), way=st.sampled_from(["close", "abandon"]))
    def give_up(self, data: st.DataObject, way: str) -> None:
        name = data.draw(st.sampled_from(self.names))
        self.step(getattr(self.lane, way)(name) or [])

    @precondition(lambda self: self.aborting)
    @rule()
    def abort_ends(self) -> None:
        assert self.aborting is not None
        name, self.aborting = self.aborting, None
        self.step(self.lane.aborted(name))

    def step(self, effects: list[Effect]) -> None:
        self.now += 0.001
        for effect in [*effects, *self.lane.advance(self.now)]:
            match effect:
                case Launch(name, number):
                    assert self.waiting.pop(number) == name
                    assert set(self.in_flight.values()) <= {name}, "two groups share the device"
                    assert self.aborting is None, "launched during an abort"
                    self.in_flight[number] = name
                case Finish(number, _):
                    assert (self.waiting.pop(number, None) is None) != (
                        self.in_flight.pop(number, None) is None
                    ), "an operation ends once"
                case Abort(name):
                    assert self.aborting is None
                    assert set(self.in_flight.values()) <= {name}
                    self.aborting = name
                case Destroy(name):
                    assert name not in self.destroyed
                    assert not self.in_flight, "destroying waits for the device"
                    self.destroyed.add(name)

    @invariant()
    def it_says_what_it_awaits(self) -> None:
        assert set(self.lane.running) <= set(self.in_flight)

    def teardown(self) -> None:
        for name in self.names:
            self.step(self.lane.abandon(name))
        while self.in_flight or self.waiting or self.destroyed != set(self.names):
            left = len(self.destroyed)
            if self.aborting is not None:
                self.abort_ends()
            else:
                self.step([])
            assert self.aborting is not None or len(self.destroyed) > left, "it came to no end"


Chaos.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestChaos = Chaos.TestCase


@given(st.lists(st.sampled_from("abc"), max_size=30))
def test_operations_are_launched_in_the_order_in_which_they_were_submitted(order: str) -> None:
    lane = lane_of("a", "b", "c")
    submitted = [lane.submit(name) for name in order]

    launched: list[int] = []
    while effects := lane.advance(0.0):
        numbers = [effect.operation for effect in effects if isinstance(effect, Launch)]
        launched += numbers
        for number in numbers:
            lane.ended(number, "")

    assert launched == submitted
