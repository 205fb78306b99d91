"""NCCL groups of real processes on one GPU: what `tests/unit/worker/test_nccl.py` scripts."""

import time
from pathlib import Path

import pytest

from integration.communicator.ranks import Nccl, communicator, running

FOUR, THREE, PAIR = range(4), range(3), range(2)


def test_the_sum_over_a_group_is_right(tmp_path: Path) -> None:
    with running(4, tmp_path, Nccl()) as ranks:
        ranks.call(FOUR, "build", communicator("four", FOUR))

        assert ranks.allreduce(FOUR, "four", size=4_000_000) == [{15.0}] * 4


@pytest.mark.parametrize("end", ["kill", "freeze"])
def test_survivors_of_a_lost_mate_sum_again_within_two_seconds(end: str, tmp_path: Path) -> None:
    with running(4, tmp_path, Nccl()) as ranks:
        ranks.call(FOUR, "build", communicator("four", FOUR))
        ranks.allreduce(FOUR, "four")
        for rank in THREE:  # rank 3 stays away, so that the others are inside
            ranks[rank].call("begin", "four", 1.0, 4_000_000)
        getattr(ranks[3], end)()

        started = time.monotonic()
        took = ranks.call(THREE, "abandon", "four")
        ranks.call(THREE, "build", communicator("three", THREE))
        sums = ranks.allreduce(THREE, "three")

        assert sums == [{7.0}] * 3
        assert time.monotonic() - started < 2.0
        assert max(took) < 0.05, "abandoning waits for nothing"


def test_a_newcomer_is_taken_into_a_new_group(tmp_path: Path) -> None:
    with running(3, tmp_path, Nccl()) as ranks:
        ranks.call(PAIR, "build", communicator("pair", PAIR))
        ranks.allreduce(PAIR, "pair")

        ranks.call(THREE, "build", communicator("three", THREE))

        assert ranks.allreduce(THREE, "three") == [{7.0}] * 3


def test_groups_given_up_return_their_memory(tmp_path: Path) -> None:
    with running(2, tmp_path, Nccl()) as ranks:

        def build_and_retire(name: str) -> int:
            ranks.call(PAIR, "build", communicator(name, PAIR))
            ranks.allreduce(PAIR, name)
            ranks.call(PAIR, "retire", name)
            ranks.call(PAIR, "usage")  # the reaper is done
            return int(ranks[0].call("device_bytes"))

        after_first = build_and_retire("group-0")
        after_last = [build_and_retire(f"group-{number}") for number in range(1, 6)][-1]

        assert after_last <= after_first + (64 << 20)
