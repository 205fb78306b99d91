"""What an event costs the coordinator does not grow with the job: counted in executed opcodes."""

import gc
import sys
from collections.abc import Callable
from types import FrameType

import pytest

from dssync.control import messages as m
from dssync.control.events import Event, Received, Ticked
from dssync.control.view import slot_of
from unit.control.job import JobOnPaper

PAIRS = m.SyncSettings("grid", 2, 1, "relaxed", 0)
DATA = m.Register((m.Track("", 1 << 20),), 1)


def job_of(size: int) -> JobOnPaper:
    """A job with data in which every second member has arrived in the lower of two open rounds."""
    job = JobOnPaper(desired=size, sync=PAIRS)
    job.begin(*(f"{slot}.0.{slot:08x}" for slot in range(size)))
    job.says(job.roster[0], DATA)
    job.arrive(*job.roster[::2])
    job.takes(Ticked())
    return job


def opcodes(act: Callable[[], object]) -> int:
    """Return how many opcodes of the interpreter an action executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> object:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    gc.disable()  # A collection may come at any time, and has callbacks that are written in Python.
    sys.settrace(trace)
    try:
        act()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


def said(key: str, message: m.FromMemberBody) -> Event:
    """Return what a member says, as its launcher passes it on."""
    return Received(slot_of(key), m.FromMember(key, m.MEMBER.encode_text(message)))


EVENTS: dict[str, Callable[[JobOnPaper], list[Event]]] = {
    "tick": lambda job: [Ticked()],
    "heartbeat": lambda job: [Received(1, m.Heartbeat(()))],
    "arrival": lambda job: [said(job.roster[1], m.Arrive(0, 0, False))],
    "results of a group": lambda job: [
        said(mate, m.Applied(0, 0, ())) for mate in job.mates(job.roster[0])
    ],
    "lease": lambda job: [said(job.roster[1], m.Take(1, 0))],
}


def cost(size: int, events_of: Callable[[JobOnPaper], list[Event]]) -> int:
    """Return what events cost in a job of so many members."""
    job = job_of(size)
    events = events_of(job)
    return opcodes(lambda: [job.coordinator.handle(event, job.now) for event in events])


@pytest.mark.parametrize("events_of", EVENTS.values(), ids=EVENTS.keys())
def test_an_event_costs_the_same_in_a_job_of_ten_times_as_many(
    events_of: Callable[[JobOnPaper], list[Event]],
) -> None:
    assert cost(80, events_of) == cost(8, events_of)


def test_ticks_cost_the_same_again_once_a_deadline_is_over_and_all_groups_are_closed() -> None:
    costs = []
    for size in (8, 80):
        job = job_of(size)
        job.wait(5.2, *range(size))
        for key in job.roster:
            job.says(key, m.Abandoned(0, 0), m.Applied(0, 0, ()))
        costs.append(opcodes(lambda job=job: job.takes(Ticked())))

    assert costs[0] == costs[1]
