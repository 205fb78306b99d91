"""Arbiters: one winner per version, whoever races, and files that are not records are refused."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dssync import contract
from dssync.agent.arbiters import KEPT, Arbiter, FileArbiter, Record, StaticArbiter
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
            if len(won) == 1:
                print("won", flush=True)
    return won


def race(cell: Path) -> list[subprocess.Popen[bytes]]:
    """Start racers; their pipes have no buffer, of which ``communicate`` would know nothing."""
    return [
        subprocess.Popen(
            [sys.executable, __file__, str(cell), f"p{n}"], bufsize=0, stdout=subprocess.PIPE
        )
        for n in range(PROCESSES)
    ]


def wins(racers: list[subprocess.Popen[bytes]], within_seconds: float) -> list[tuple[int, str]]:
    """Wait until racers have won all they want; return what they won, in order."""
    said = [racer.communicate(timeout=within_seconds)[0] for racer in racers]
    return sorted(tuple(pair) for each in said for pair in json.loads(each.splitlines()[-1]))


ALL = [(number, str(number)) for number in range(1, PROCESSES * SWAPS + 1)]


def test_racing_processes_win_each_version_exactly_once(tmp_path: Path) -> None:
    racers = race(tmp_path / "cell")

    assert wins(racers, within_seconds=50) == ALL
    assert FileArbiter(tmp_path / "cell").read_now().term == PROCESSES * SWAPS


def test_processes_that_are_stopped_inside_a_swap_hold_nobody_up(tmp_path: Path) -> None:
    first, *others = racers = race(tmp_path / "cell")
    for racer in racers:
        assert racer.stdout is not None
        racer.stdout.readline()  # It has won for the first time.

    for other in others:
        other.send_signal(signal.SIGSTOP)
    try:
        won = wins([first], within_seconds=20)
    finally:
        for other in others:
            other.send_signal(signal.SIGCONT)

    assert sorted([*won, *wins(others, within_seconds=50)]) == ALL


@pytest.mark.parametrize("is_tidied", [True, False])
async def test_who_was_stopped_until_its_number_is_free_again_wins_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tidied: bool
) -> None:
    slow = FileArbiter(tmp_path / "cell")
    first = await swapped(slow, Record(), Record(holder="a", term=1))
    link = os.link

    def stopped_meanwhile(source: Path, target: Path) -> None:
        monkeypatch.setattr(os, "link", link)
        others = FileArbiter(tmp_path / "cell")
        latest = first
        for term in range(2, 2 * KEPT):
            swap = others._swap(latest, Record(holder="b", term=term))
            assert swap is not None
            latest = swap
        if not is_tidied:
            source.write_bytes((tmp_path / "cell" / latest.version).read_bytes())
        link(source, target)

    monkeypatch.setattr(os, "link", stopped_meanwhile)
    late = await slow.swap(first, Record(holder="a", term=2))

    assert late is None
    assert (await slow.read()).holder == "b"


async def test_few_records_of_the_past_stay_and_nothing_of_crashes(tmp_path: Path) -> None:
    arbiter, latest = FileArbiter(tmp_path / "cell"), Record()
    for term in range(3 * KEPT):
        latest = await swapped(arbiter, latest, Record(holder="a", term=term))
        if term == 2:
            (tmp_path / "cell" / ".3.of-a-crash").touch()

    names = os.listdir(tmp_path / "cell")

    assert sorted(map(int, names)) == list(range(2 * KEPT + 1, 3 * KEPT + 1))


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
        b'{"holder": "a", "te',
        b"[]",
        b'{"holder": "", "term": "0", "values": {}}',
        b'{"holder": "", "term": 0, "values": {"a": 1}}',
        b"\xff\xfe",
    ],
)
async def test_a_torn_or_foreign_record_is_refused_and_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "cell" / "3"
    path.parent.mkdir()
    path.write_bytes(content)

    with pytest.raises(ArbiterError, match="is not an arbiter's record"):
        await FileArbiter(path.parent).swap(Record("3"), Record(holder="a", term=1))

    assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["3"]


async def test_a_file_in_place_of_the_folder_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "cell").write_text("mine")

    with pytest.raises(ArbiterError, match="cannot be read"):
        await FileArbiter(tmp_path / "cell").swap(Record(), Record(holder="a", term=1))

    assert (tmp_path / "cell").read_text() == "mine"


async def test_unreachable_folder_is_an_arbiter_error(tmp_path: Path) -> None:
    arbiter = FileArbiter(tmp_path / "missing" / "cell")

    with pytest.raises(ArbiterError, match="cannot be written"):
        await arbiter.swap(Record(), Record(holder="a", term=1))


async def test_records_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    await swapped(FileArbiter(tmp_path / "cell"), Record(), Record(holder="a", term=1))

    found = [tmp_path / "cell", *(tmp_path / "cell").iterdir()]

    assert [each.stat().st_mode & 0o777 for each in found] == [0o700, 0o600]


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
