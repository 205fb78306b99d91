"""Groups that are built, used and closed as planned."""

import os
from pathlib import Path

import pytest
import torch

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.gloo import GlooSettings
from dssync.worker.sockets import listener_endpoint
from integration.communicator.ranks import communicator, running

FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


@pytest.mark.parametrize("size", [2, 3, 4])
def test_a_group_sums_tensors_of_every_float_type(size: int, tmp_path: Path) -> None:
    with running(size, tmp_path) as ranks:
        ranks.call(range(size), "build", communicator("all", range(size)))

        sums = [ranks.call(range(size), "allreduce", "all", 1.5, 1000, kind) for kind in FLOATS]

    assert sums == [[{1.5 * size}] * size] * len(FLOATS)


def test_operations_leave_no_record_that_would_grow_with_the_groups(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("all", range(2)))
        ranks.allreduce(range(2), "all")

        assert ranks.call(range(2), "recorded") == [0, 0]


@pytest.mark.parametrize(
    ("settings", "host"),
    [
        (GlooSettings(host="127.0.0.2"), "127.0.0.2"),
        (GlooSettings(host="::1"), "::1"),
        (GlooSettings(host="192.0.2.1", interface="lo"), "127.0.0.1"),
    ],
    ids=["IPv4", "IPv6", "interface"],
)
def test_a_group_listens_where_it_is_told_and_is_released_there(
    settings: GlooSettings, host: str, tmp_path: Path
) -> None:
    with running(3, tmp_path, settings) as ranks:
        ranks.call(range(3), "build", communicator("all", range(3)))
        assert [listener_endpoint(ranks.blobs.get())[0] for _ in range(3)] == [host] * 3
        assert ranks.allreduce(range(3), "all") == [{7}] * 3

        ranks[1].call("begin", "all", 1.0)
        ranks[1].call("abandon", "all")

        with pytest.raises(CommunicatorError, match="communicator all failed"):
            ranks[1].call("end", "all")


def test_the_threads_of_a_group_take_no_core_from_a_mate_that_is_still_writing(
    tmp_path: Path,
) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("all", range(2)))
        # The thread has its name when it has worked.
        ranks.call(range(2), "allreduce", "all", 1.0)

        policies = ranks[0].call("policies", "gloo_tcp_loop")

    assert policies == {os.SCHED_BATCH}


def test_groups_that_wait_for_each_other_in_a_circle_are_built(tmp_path: Path) -> None:
    pairs = {f"{a}-{b}": (a, b) for a, b in ((0, 1), (1, 2), (2, 0))}
    specs = {name: communicator(name, pair) for name, pair in pairs.items()}
    with running(3, tmp_path) as ranks:
        # Each rank starts with the pair that its predecessor starts last.
        for rank, order in enumerate([("0-1", "2-0"), ("1-2", "0-1"), ("2-0", "1-2")]):
            for name in order:
                ranks[rank].call("prepare", specs[name])

        for name, pair in pairs.items():
            ranks.call(pair, "build", specs[name])
        sums = {name: ranks.allreduce(pair, name) for name, pair in pairs.items()}

    assert sums == {"0-1": [{3}] * 2, "1-2": [{6}] * 2, "2-0": [{5}] * 2}


def test_an_operation_that_ends_as_the_time_is_over_has_not_failed(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))

        ranks.call(range(2), "poll", "pair", 1000)

        assert ranks.allreduce(range(2), "pair") == [{3}] * 2


def test_preparing_twice_builds_once(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        for _ in range(2):
            ranks.call(range(2), "build", communicator("pair", range(2)))

        counts = ranks[0].call("counts")

    assert (counts.builds_succeeded, counts.cached) == (1, 1)


def test_an_id_never_stands_for_two_member_lists(tmp_path: Path) -> None:
    with running(1, tmp_path) as ranks:
        ranks[0].call("prepare", communicator("pair", (0, 1)))

        with pytest.raises(CommunicatorError, match="another id"):
            ranks[0].call("prepare", communicator("pair", (0, 2)))


@pytest.mark.parametrize("way", ["abandon", "retire"])
def test_a_communicator_that_was_given_up_comes_never_back(way: str, tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))
        ranks[0].call(way, "pair")

        with pytest.raises(CommunicatorError, match="given up"):
            ranks[0].call("begin", "pair", 1.0)
        with pytest.raises(BuildCancelledError):
            ranks[0].call("build", communicator("pair", range(2)))


def test_retiring_lets_operations_end(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))
        ranks[0].call("begin", "pair", 1.0)
        ranks[0].call("retire", "pair")

        ranks[1].call("begin", "pair", 2.0)

        assert ranks.call(range(2), "end", "pair") == [{3}, {3}]
        ranks[0].call("usage")


def test_a_callback_may_close_its_own_group(tmp_path: Path) -> None:
    with running(2, tmp_path) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))

        ranks.call(range(2), "allreduce_and_close", "pair")

        ranks.call(range(2), "usage")


def test_an_operation_without_its_mate_fails_after_its_own_timeout(tmp_path: Path) -> None:
    settings = GlooSettings(build_timeout_seconds=60, operation_timeout_seconds=0.3)
    with running(2, tmp_path, settings) as ranks:
        ranks.call(range(2), "build", communicator("pair", range(2)))

        with pytest.raises(CommunicatorError, match="pair failed"):
            ranks[0].call("allreduce", "pair", 1.0)
