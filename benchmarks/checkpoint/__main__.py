"""What a save costs: the stall of the training, and the disk. ``make bench-checkpoint``.

Saves go through `dssync.worker.checkpoint` as a member's do; each is paired with a plain write of
as many bytes to the same disk, made durable in the same way, in alternating order.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import torch

from benchmarks.publish import OUTPUT, machine, publish, show, versions
from benchmarks.results import (
    Bar,
    Figure,
    Ratio,
    Report,
    at_least,
    at_most,
    figure,
    paired_ratio,
)
from dssync.control.messages import LedgerState, TrackState
from dssync.worker import checkpoint
from dssync.worker.buckets import Buckets, averaged
from dssync.worker.moments import Moments
from dssync.worker.payload import Payload
from dssync.worker.saved import list_ahead, stage
from dssync.worker.staging import Snapshot
from dssync.worker.tree import pack

MEGABYTE: Final = 1 << 20
TENSORS: Final = 64
FOLDER: Final = OUTPUT.parent / "bench-checkpoint"
LEDGER: Final = LedgerState(1, (TrackState("", 1000, 500, (498, 499)),), 0)
FACTS: Final = checkpoint.Facts("consensus", 1, 500, 0, "grid", 8, 1)


def payload_of(megabytes: int) -> Payload:
    """Return a model and its momentum of that size together."""
    elements = megabytes * MEGABYTE // 4 // (2 * TENSORS)
    model = torch.nn.ParameterList([torch.rand(elements) for _ in range(TENSORS)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for parameter in model:
        parameter.grad = torch.rand(elements)
    optimizer.step()
    optimizer.zero_grad()
    return Payload(model, optimizer)


def bare_copy(payload: Payload) -> Callable[[], Callable[[], None]]:
    """Return what prepares a bare copy: every tensor once, into memory that was touched."""
    here: list[torch.Tensor] = []
    pack(payload.state(), here)
    there = [torch.ones_like(each) for each in here]

    def prepare() -> Callable[[], None]:
        # Anew each time: a round gives parameters other memory, which these do not follow.
        now: list[torch.Tensor] = []
        pack(payload.state(), now)
        return lambda: copy_each(there, now)

    return prepare


def copy_each(there: list[torch.Tensor], here: list[torch.Tensor]) -> None:
    """Copy tensors one after the other."""
    for to, each in zip(there, here, strict=True):
        to.copy_(each)


def flush(payload: Payload) -> Callable[[], None]:
    """Return what a flush does to the state's memory: all of it is staged and taken over."""
    buckets, moments = Buckets(averaged(payload.model).tensors), Moments(payload.optimizer)

    def stage_and_apply() -> None:
        both = buckets.joined(moments.buckets())
        both.stage(1.0)
        both.apply()

    return stage_and_apply


def seconds_of(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def plain_write(data: memoryview) -> float:
    """Write bytes into a new file and make them durable."""
    path = FOLDER / "plain"
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        while len(data):
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    seconds = time.perf_counter() - started
    path.unlink()
    return seconds


def save(snapshot: Snapshot) -> None:
    """Write a checkpoint and publish it, as a member's thread does."""
    folder, state = FOLDER / f"{checkpoint.SAVING}bench", snapshot.state
    assert isinstance(state, dict)
    checkpoint.write(folder, state, LEDGER, FACTS)
    checkpoint.publish(folder, FOLDER)


def measure(megabytes: int, pairs: int) -> tuple[list[Figure], list[Ratio], list[Bar]]:
    """Measure one size."""
    case, payload = f"{megabytes} MB of state", payload_of(megabytes)
    snapshot, prepare, average = stage(payload, None), bare_copy(payload), flush(payload)
    stalls, copies, saves, plain, lists = [], [], [], [], []

    def stall() -> None:
        started = time.perf_counter()
        ahead = list_ahead(payload)
        lists.append(time.perf_counter() - started)
        average()
        stalls.append(seconds_of(lambda: stage(payload, snapshot.memory, ahead)))

    def write() -> None:
        saves.append(seconds_of(lambda: save(snapshot)))
        checkpoint.remove_old(FOLDER, keep=1)

    def bare() -> None:
        average()
        copies.append(seconds_of(prepare()))

    def disk() -> None:
        plain.append(plain_write(snapshot.buffer.numpy().data))

    for pair in range(pairs):
        # Whoever comes first finds other caches than who comes second.
        for first, second in ((stall, bare), (write, disk)):
            for call in (second, first) if pair % 2 else (first, second):
                call()
    ratio = paired_ratio(case, "stall / one copy", ("dssync", stalls), ("copy", copies))
    rate = paired_ratio(case, "plain write / save", ("disk", plain), ("dssync", saves))
    figures = [
        figure(case, subject, metric, "ms", [1000 * each for each in samples])
        for subject, metric, samples in (
            ("dssync", "listed beside the sum", lists),
            ("dssync", "stall of the training", stalls),
            ("memory", "one copy of the state", copies),
            ("dssync", "save, durable and published", saves),
            ("disk", "plain write and fsync", plain),
        )
    ]
    bars = [
        at_most(f"stall, {megabytes} MB", ratio.ratio, 1.1, "copies of the state"),
        at_least(f"bandwidth, {megabytes} MB", rate.ratio, 0.8, "of the disk's"),
    ]
    return figures, [ratio, rate], bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pairs, 64 MB only")
    quick = parser.parse_args().quick
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    found = [measure(each, 5 if quick else 60) for each in ((64,) if quick else (64, 256))]
    shutil.rmtree(Path(FOLDER))
    figures, ratios, bars = (
        [item for part in parts for item in part] for parts in zip(*found, strict=True)
    )
    command = "python -m benchmarks.checkpoint --quick" if quick else "make bench-checkpoint"
    report = Report(
        "checkpoint", command, machine(), versions("torch", "safetensors"), figures, ratios, bars
    )
    (show if quick else publish)(report)
    sys.exit(not all(bar.holds for bar in bars))


if __name__ == "__main__":
    main()
