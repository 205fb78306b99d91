"""What a coordinator's launcher writes into the record, how often, and what it reads there."""

import asyncio
import math
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from dssync import contract
from dssync.agent.arbiters import Arbiter, FileArbiter, Record
from dssync.agent.recorder import Recorder, Sizes, entries
from dssync.control import messages as m
from dssync.errors import ArbiterError
from dssync_operator.record import Progress, View, parse_record
from unit.control.job import JobOnPaper

A, B, C = "0.0.a", "1.0.b", "2.0.c"


@pytest.fixture
def job() -> JobOnPaper:
    job = JobOnPaper(desired=3)
    job.begin(A, B, C)
    return job


@dataclass
class Unsteady:
    """A file arbiter that can be out of reach, or slower than somebody else."""

    file: FileArbiter
    reachable: bool = True
    writes: list[Record] = field(default_factory=list)
    rival: Record | None = None
    """What somebody else writes between our next read and our swap."""

    async def read(self) -> Record:
        if not self.reachable:
            raise ArbiterError("out of reach")
        found = await self.file.read()
        if self.rival is not None:
            await self.file.swap(found, self.rival)
            self.rival = None
        return found

    async def swap(self, expected: Record, new: Record) -> Record | None:
        if not self.reachable:
            raise ArbiterError("out of reach")
        written = await self.file.swap(expected, new)
        if written is not None:
            self.writes.append(written)
        return written


@pytest.fixture
async def cell(tmp_path: Path) -> Unsteady:
    cell = Unsteady(FileArbiter(tmp_path / "cell"))
    values = {contract.RECORD_DESIRED: "3", contract.RECORD_MIN: "1"}
    await cell.swap(Record(), Record(holder="me", term=1, values=values))
    cell.writes.clear()
    return cell


async def recorder_of(job: JobOnPaper, cell: Arbiter, resized: list[Sizes]) -> Recorder:
    mine = await cell.read()
    return Recorder(cell, mine, lambda: entries(job.coordinator), resized.append)


async def operator_writes(cell: Unsteady, **values: str) -> None:
    record = await cell.file.read()
    changed = {f"{contract.GROUP}/{key}": text for key, text in values.items()}
    await cell.file.swap(record, replace(record, values={**record.values, **changed}))


def test_the_operator_reads_what_the_launcher_writes(job: JobOnPaper) -> None:
    job.says(A, m.Register((m.Track("", 10),), 2))
    job.says(A, m.Take(1, 0))
    batches = job.last(A, m.Leases).batches
    job.arrive(A, B, C)

    job.apply(A, batches=batches)

    record = parse_record({"metadata": {"annotations": entries(job.coordinator)}, "spec": {}})
    view = job.coordinator.world.view
    assert record.view == View(term=1, sequence=view.sequence, pods=3, workers=3)
    assert record.progress == Progress(step=1, total_steps=20)
    assert not record.completed


def test_without_data_that_is_led_rounds_are_the_steps(job: JobOnPaper) -> None:
    before = parse_record({"metadata": {"annotations": entries(job.coordinator)}, "spec": {}})

    job.arrive(A)

    after = parse_record({"metadata": {"annotations": entries(job.coordinator)}, "spec": {}})
    assert (before.progress, after.progress) == (Progress(0, None), Progress(1, None))


def test_at_the_end_the_job_is_completed_and_its_last_view_told_whoever_has_left(
    job: JobOnPaper,
) -> None:
    view = job.coordinator.world.view
    job.says(A, m.Register((m.Track("", 1),), 1), m.Take(1, 0))
    job.apply(A, batches=(0,))
    job.apply(B, C)
    number = job.assignment(A).round
    for key in (A, B, C):
        job.says(key, m.Confirm(number, 0, ()))
    job.apply(A, B, C, round=number)

    for slot, key in enumerate((A, B, C)):
        job.hear(slot, m.Exited(key, 0, False))

    record = parse_record({"metadata": {"annotations": entries(job.coordinator)}, "spec": {}})
    assert record.completed
    assert record.view == View(term=1, sequence=view.sequence, pods=3, workers=3)
    assert record.progress == Progress(1, 1)


def test_before_the_first_world_there_is_nothing_to_write() -> None:
    assert entries(JobOnPaper().coordinator) == {}


async def test_what_others_wrote_stays(job: JobOnPaper, cell: Unsteady) -> None:
    recorder = await recorder_of(job, cell, [])
    await operator_writes(cell, nodes="{}")

    await recorder.update(await cell.read(), now=0.0)

    record = await cell.file.read()
    assert (record.holder, record.term) == ("me", 1)
    assert record.values[f"{contract.GROUP}/nodes"] == "{}"
    assert contract.RECORD_VIEW in record.values


async def test_nothing_new_is_not_written(job: JobOnPaper, cell: Unsteady) -> None:
    recorder = await recorder_of(job, cell, [])

    for second in range(100):
        await recorder.update(await cell.read(), now=float(second))

    assert len(cell.writes) == 1


async def test_views_are_written_once_a_second_and_mere_progress_every_ten(
    job: JobOnPaper, cell: Unsteady
) -> None:
    recorder = await recorder_of(job, cell, [])
    await recorder.update(await cell.read(), now=0.0)
    job.arrive(A)
    await recorder.update(await cell.read(), now=9.9)
    progress_held_back = len(cell.writes)
    await recorder.update(await cell.read(), now=10.0)

    job.disconnect(2)
    job.wait(0.5, 0, 1)
    await recorder.update(await cell.read(), now=10.9)
    view_held_back = len(cell.writes)
    await recorder.update(await cell.read(), now=11.0)

    assert (progress_held_back, view_held_back, len(cell.writes)) == (1, 2, 3)


async def test_new_sizes_are_told_once(job: JobOnPaper, cell: Unsteady) -> None:
    resized: list[Sizes] = []
    recorder = await recorder_of(job, cell, resized)
    await recorder.update(await cell.read(), now=0.0)
    await operator_writes(cell, desired="5", min="2")

    await recorder.update(await cell.read(), now=1.0)
    await recorder.update(await cell.read(), now=2.0)

    assert resized == [Sizes(5, 2)]


@pytest.mark.parametrize("desired", ["", "many", "2.5", "true", "[3]", "-1", "null", "9" * 5000])
async def test_sizes_that_are_none_change_nothing(desired: str) -> None:
    values = {contract.RECORD_DESIRED: desired, contract.RECORD_MIN: "2"}

    assert Sizes(3, 1).updated(Record(values=values)) == Sizes(3, 2)


async def test_what_could_not_be_written_is_written_later(job: JobOnPaper, cell: Unsteady) -> None:
    recorder = await recorder_of(job, cell, [])
    record = await cell.read()
    cell.reachable = False
    await recorder.update(record, now=0.0)
    cell.reachable = True
    missing = not cell.writes

    await recorder.update(record, now=0.2)

    assert missing
    assert len(cell.writes) == 1


async def test_a_lost_race_is_run_again(job: JobOnPaper, cell: Unsteady) -> None:
    recorder = await recorder_of(job, cell, [])
    cell.rival = replace(await cell.read(), values={f"{contract.GROUP}/nodes": "{}"})

    await recorder.update(await cell.read(), now=0.0)
    await recorder.update(await cell.read(), now=0.1)

    (written,) = cell.writes
    assert {f"{contract.GROUP}/nodes", contract.RECORD_VIEW} <= set(written.values)


async def test_who_is_no_longer_coordinator_writes_nothing(job: JobOnPaper, cell: Unsteady) -> None:
    recorder = await recorder_of(job, cell, [])
    mine = await cell.read()
    await cell.file.swap(mine, Record(holder="other", term=2))

    await recorder.update(mine, now=0.0)
    lasted = await recorder.finish()

    assert (cell.writes, lasted) == ([], False)


async def test_the_end_is_written_at_once_and_nothing_after_it(
    job: JobOnPaper, cell: Unsteady
) -> None:
    recorder = await recorder_of(job, cell, [])
    await recorder.update(await cell.read(), now=asyncio.get_running_loop().time())
    job.coordinator.job.completed = True
    lasted = await recorder.finish()
    job.says(A, m.Register((m.Track("", 10),), 1))
    await recorder.update(await cell.read(), now=math.inf)

    assert lasted
    assert [each.completed for each in cell.writes] == [False, True]
