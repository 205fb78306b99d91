"""Members that never come, die or freeze, and what the others do then."""

from pathlib import Path
from statistics import median

import pytest

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.gloo import GlooSettings
from integration.communicator.ranks import communicator, running

PATIENT = GlooSettings(build_timeout_seconds=60, operation_timeout_seconds=60)
"""Timeouts longer than any test: what ends earlier was released."""

BRIEF = GlooSettings(operation_timeout_seconds=5)
"""For tests that wait until all is destroyed: an operation in transmission may time out first."""


def test_cancelling_a_build_whose_member_never_comes_ends_it_at_once(tmp_path: Path) -> None:
    with running(1, tmp_path, PATIENT) as ranks:
        before = ranks[0].call("usage")
        ended_after_seconds = []
        for spec in (communicator(f"build-{number}", (0, 1)) for number in range(10)):
            ranks[0].call("prepare", spec)
            ranks.blobs.get(timeout=10)  # it has published its address and waits for the other

            ended_after_seconds.append(ranks[0].call("cancel", spec))

        assert median(ended_after_seconds) < 0.05
        assert ranks[0].call("usage", before) == before
        assert ranks[0].call("counts").builds_cancelled == 10


def test_a_discarded_mailbox_ends_the_build_that_waits_for_it(tmp_path: Path) -> None:
    with running(1, tmp_path, PATIENT) as ranks:
        before = ranks[0].call("usage")
        ranks[0].start("build", communicator("pair", (0, 1)))
        ranks.blobs.get(timeout=10)

        ranks[0].send("discard", "pair")

        with pytest.raises(BuildCancelledError, match="pair"):
            ranks[0].reply()
        assert ranks[0].call("usage", before) == before


@pytest.mark.parametrize("way", ["abandon", "retire"])
def test_a_communicator_given_up_before_its_assignment_came_is_not_built(
    way: str, tmp_path: Path
) -> None:
    with running(1, tmp_path, PATIENT) as ranks:
        ranks.deliver(0, "pair", "0/1", b"from a mate")
        ranks[0].call(way, "pair")

        with pytest.raises(BuildCancelledError, match="pair"):
            ranks[0].call("build", communicator("pair", (0, 1)))

        assert ranks[0].call("kept_blobs") == 0


def test_a_build_fails_when_a_member_does_not_come_in_time(tmp_path: Path) -> None:
    with running(1, tmp_path, GlooSettings(build_timeout_seconds=0.2)) as ranks:
        before = ranks[0].call("usage")

        with pytest.raises(CommunicatorError, match=r"no blob for .* within 0.2 s"):
            ranks[0].call("build", communicator("pair", (0, 1)))

        assert ranks[0].call("usage", before) == before


@pytest.mark.parametrize("size", [1000, 4_000_000])
def test_survivors_of_a_kill_in_an_operation_get_the_right_sum(size: int, tmp_path: Path) -> None:
    with running(4, tmp_path, BRIEF) as ranks:
        ranks.call(range(4), "build", communicator("four", range(4)))
        for rank in (1, 2, 3):  # rank 0 stays away, so that the others are inside
            ranks[rank].call("begin", "four", 2.0**rank, size)
        ranks[3].kill()
        ranks[0].call("begin", "four", 1.0, size)

        ranks.call(range(3), "abandon", "four")
        ranks.call(range(3), "build", communicator("three", range(3)))
        sums = ranks.allreduce(range(3), "three", size)

        assert sums == [{7}] * 3
        ranks.call(range(3), "usage")  # the old operations have ended
        assert ranks.call(range(3), "values", "three") == [{7}] * 3


def test_survivors_of_a_frozen_rank_go_on_and_it_comes_back(tmp_path: Path) -> None:
    with running(4, tmp_path, BRIEF) as ranks:
        ranks.call(range(4), "build", communicator("four", range(4)))
        for rank in (1, 2, 3):
            ranks[rank].call("begin", "four", 2.0**rank)
        ranks[3].freeze()
        ranks[0].call("begin", "four", 1.0)

        ranks.call(range(3), "abandon", "four")
        ranks.call(range(3), "build", communicator("three", range(3)))
        assert ranks.allreduce(range(3), "three") == [{7}] * 3

        ranks[3].thaw()
        ranks[3].call("abandon", "four")
        ranks.call(range(4), "build", communicator("again", range(4)))
        assert ranks.allreduce(range(4), "again") == [{15}] * 4
        ranks.call(range(4), "usage")


def test_who_waits_for_an_operation_hears_that_it_was_given_up(tmp_path: Path) -> None:
    with running(2, tmp_path, BRIEF) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))

        with pytest.raises(CommunicatorError, match="communicator pair failed"):
            ranks[0].call("wait_and_abandon", "pair")

        ranks[0].call("usage")  # the group was destroyed


def test_an_operation_that_waits_for_a_mate_is_released_long_before_its_timeout(
    tmp_path: Path,
) -> None:
    with running(4, tmp_path, PATIENT) as ranks:
        ranks.call(range(4), "build", communicator("four", range(4)))
        ranks[1].call("begin", "four", 1.0)

        abandoned_in_seconds = ranks[1].call("abandon", "four")

        assert abandoned_in_seconds < 1
        with pytest.raises(CommunicatorError, match="communicator four failed"):
            ranks[1].call("end", "four")
        assert ranks[1].call("counts").operations_abandoned == 1


def test_other_groups_do_not_notice_that_one_is_abandoned(tmp_path: Path) -> None:
    with running(3, tmp_path, PATIENT) as ranks:
        for name in ("lost", "kept"):
            ranks.call(range(3), "build", communicator(name, range(3)))
        ranks.call((1, 2), "begin", "lost", 1.0)
        ranks.call((1, 2), "begin", "kept", 1.0)

        ranks.call(range(3), "abandon", "lost")
        ranks[0].call("begin", "kept", 1.0)

        assert ranks.call(range(3), "end", "kept") == [{3}] * 3


def test_a_hundred_groups_leave_no_descriptor_and_no_thread(tmp_path: Path) -> None:
    def cycle(number: int) -> None:
        name = f"group-{number}"
        ranks.call(range(2), "build", communicator(name, range(2)))
        if number % 2:
            assert ranks.allreduce(range(2), name) == [{3}] * 2
            ranks.call(range(2), "retire", name)
        else:
            ranks[0].call("begin", name, 1.0)
            ranks.call(range(2), "abandon", name)

    with running(2, tmp_path, PATIENT) as ranks:
        before = ranks.call(range(2), "usage")
        for number in range(100):
            cycle(number)

        assert ranks.call(range(2), "usage", before[0]) == before


def test_blobs_that_come_late_do_not_pile_up(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("built", range(2)))
        ranks[0].call("cancel", communicator("given up", range(2)))

        for name in ("built", "given up"):
            ranks.deliver(0, name, "0/1", b"late")

        assert ranks[0].call("kept_blobs") == 0
