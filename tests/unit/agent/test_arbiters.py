"""Arbiters: one winner per version, whoever races, and files that are not records are refused."""

import asyncio
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dssync import contract
from dssync.agent.arbiters import Arbiter, FileArbiter, Record, StaticArbiter, locked
from dssync.errors import ArbiterError

PROCESSES = 8
SWAPS = 50


async def swapped(arbiter: Arbiter, expected: Record, new: Record) -> Record:
    record = await arbiter.swap(expected, new)
    assert record is not None
    return record


async def win(path: Path, holder: str) -> list[tuple[int, str]]:
    """Swap until this holder has won ``SWAPS`` times; return the terms and versions it won."""
    arbiter, won = FileArbiter(path), []
    while len(won) < SWAPS:
        current = await arbiter.read()
        record = await arbiter.swap(current, Record(holder=holder, term=current.term + 1))
        if record is not None:
            won.append((record.term, record.version))
    return won


def test_racing_processes_win_each_version_exactly_once(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path / "cell"), f"p{index}"], stdout=subprocess.PIPE
        )
        for index in range(PROCESSES)
    ]

    won = sorted(tuple(pair) for racer in racers for pair in json.loads(racer.communicate()[0]))

    assert won == [(number, str(number)) for number in range(1, PROCESSES * SWAPS + 1)]
    assert json.loads((tmp_path / "cell").read_bytes())["term"] == PROCESSES * SWAPS


async def test_missing_file_reads_as_the_empty_record(tmp_path: Path) -> None:
    record = await FileArbiter(tmp_path / "arbiter.json").read()

    assert record == Record(version="", holder="", term=0, values={})
    assert os.listdir(tmp_path) == []


async def test_what_one_arbiter_writes_another_reads(tmp_path: Path) -> None:
    new = Record(holder="a1", term=3, values={contract.RECORD_ADDRESS: "10.0.0.1:4711"})

    written = await swapped(FileArbiter(tmp_path / "cell"), Record(), new)

    assert await FileArbiter(tmp_path / "cell").read() == written
    assert (written.holder, written.term, written.values) == (new.holder, new.term, new.values)


async def test_swap_from_an_old_version_changes_nothing(tmp_path: Path) -> None:
    arbiter = FileArbiter(tmp_path / "cell")
    first = await swapped(arbiter, Record(), Record(holder="a", term=1))
    second = await swapped(arbiter, first, Record(holder="b", term=2))

    late = await arbiter.swap(first, Record(holder="c", term=2))

    assert late is None
    assert await arbiter.read() == second


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"version": "3", "hol',
        b"[]",
        b'{"version": 3, "holder": "", "term": 0, "values": {}}',
        b'{"version": "x", "holder": "", "term": 0, "values": {}}',
        b'{"version": "3", "holder": "", "term": 0, "values": {"a": 1}}',
        b"\xff\xfe",
    ],
)
async def test_torn_or_foreign_file_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "cell"
    path.write_bytes(content)

    with pytest.raises(ArbiterError, match="is not an arbiter record"):
        await FileArbiter(path).swap(Record(), Record(holder="a", term=1))

    assert path.read_bytes() == content


async def test_unreachable_folder_is_an_arbiter_error(tmp_path: Path) -> None:
    arbiter = FileArbiter(tmp_path / "missing" / "cell")

    with pytest.raises(ArbiterError, match="cannot be written"):
        await arbiter.swap(Record(), Record(holder="a", term=1))


async def test_files_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    await swapped(FileArbiter(tmp_path / "cell"), Record(), Record(holder="a", term=1))

    modes = {entry.name: entry.stat().st_mode & 0o777 for entry in os.scandir(tmp_path)}
    assert modes == {"cell": 0o600, "cell.lock": 0o600}


def test_a_child_forked_inside_a_swap_does_not_keep_the_lock(tmp_path: Path) -> None:
    with locked(tmp_path / "cell.lock", wait_seconds=1):
        child = os.fork()
        if child == 0:
            signal.pause()
    try:
        written = asyncio.run(FileArbiter(tmp_path / "cell").swap(Record(), Record(holder="a")))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    assert written is not None


async def test_lock_that_stays_held_ends_as_an_error(tmp_path: Path) -> None:
    arbiter = FileArbiter(tmp_path / "cell", lock_wait_seconds=0.05)
    descriptor = os.open(tmp_path / "cell.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)

    with pytest.raises(ArbiterError, match="held by another process"):
        await arbiter.swap(Record(), Record(holder="a", term=1))

    os.close(descriptor)


async def test_static_host_swaps_in_its_memory() -> None:
    arbiter = StaticArbiter("10.0.0.1", 29400, is_host=True)
    empty = await arbiter.read()

    written = await swapped(arbiter, empty, Record(holder="a", term=1))

    assert empty.holder == ""
    assert await arbiter.read() == written
    assert await arbiter.swap(empty, Record(holder="b", term=1)) is None


async def test_static_guest_reads_the_endpoint_and_never_wins() -> None:
    arbiter = StaticArbiter("fd00::1", 29400, is_host=False)

    record = await arbiter.read()

    assert record.values[contract.RECORD_ADDRESS] == "[fd00::1]:29400"
    assert record.holder != ""
    assert await arbiter.swap(record, Record(holder="b", term=1)) is None


if __name__ == "__main__":
    print(json.dumps(asyncio.run(win(Path(sys.argv[1]), sys.argv[2]))))
