"""What a save costs: the stall of the training, and the disk. ``make bench-checkpoint``.

Saves go through `dssync.worker.checkpoint` as a member's do; each is paired with a plain write of
as many bytes to the same disk, made durable in the same way, in alternating order.
"""

import argparse
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Final

import torch

from benchmarks.publish import OUTPUT, machine, publish, versions
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
from dssync.worker.transfer import restore, take_snapshot

MEGABYTE: Final = 1 << 20
TENSORS: Final = 64
FOLDER: Final = OUTPUT.parent / "bench-checkpoint"
LEDGER: Final = LedgerState(1, (TrackState("", 1000, 500, (498, 499)),), 0)
FACTS: Final = checkpoint.Facts("consensus", 1, 500, 0, "grid", 8, 1)


def state_of(megabytes: int) -> dict[str, dict[str, object]]:
    """Return a model and a momentum of that size together."""
    elements = megabytes * MEGABYTE // 4 // (2 * TENSORS)
    names = [f"layer{number}.weight" for number in range(TENSORS)]
    return {part: {name: torch.rand(elements) for name in names} for part in ("model", "optimizer")}


def copy_seconds(state: dict[str, dict[str, object]], memory: torch.Tensor) -> float:
    """Copy every tensor of a state once, and nothing else."""
    tensors = [each for part in state.values() for each in part.values()]
    started, offset = time.perf_counter(), 0
    for tensor in tensors:
        assert isinstance(tensor, torch.Tensor)
        size = tensor.numel() * tensor.element_size()
        memory[offset : offset + size].view(tensor.dtype).copy_(tensor)
        offset += size
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


def save(saved: object) -> float:
    """Write a checkpoint and publish it, as a member's thread does."""
    assert isinstance(saved, dict)
    folder = FOLDER / f"{checkpoint.SAVING}bench"
    started = time.perf_counter()
    checkpoint.write(folder, saved, LEDGER, FACTS)
    checkpoint.publish(folder, FOLDER, keep=1)
    return time.perf_counter() - started


def measure(megabytes: int, pairs: int) -> tuple[list[Figure], list[Ratio], list[Bar]]:
    """Measure one size."""
    case, state = f"{megabytes} MB of state", state_of(megabytes)
    snapshot = take_snapshot(state, None)
    memory = torch.ones_like(snapshot.memory)
    stalls, copies, saves, plain = [], [], [], []
    for pair in range(pairs):
        started = time.perf_counter()
        snapshot = take_snapshot(state, snapshot.memory)
        stalls.append(time.perf_counter() - started)
        copies.append(copy_seconds(state, memory))
        saved, data = restore(snapshot.header, snapshot.buffer), snapshot.buffer.numpy().data
        if pair % 2:
            saves.append(save(saved))
        plain.append(plain_write(data))
        if not pair % 2:
            saves.append(save(saved))
    stall = paired_ratio(case, "stall / one copy", ("dssync", stalls), ("copy", copies))
    rate = paired_ratio(case, "plain write / save", ("disk", plain), ("dssync", saves))
    figures = [
        figure(case, subject, metric, "ms", [1000 * each for each in samples])
        for subject, metric, samples in (
            ("dssync", "stall of the training", stalls),
            ("memory", "one copy of the state", copies),
            ("dssync", "save, durable and published", saves),
            ("disk", "plain write and fsync", plain),
        )
    ]
    bars = [
        at_most(f"stall, {megabytes} MB", stall.ratio, 1.1, "copies of the state"),
        at_least(f"bandwidth, {megabytes} MB", rate.ratio, 0.8, "of the disk's"),
    ]
    return figures, [stall, rate], bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few pairs, 64 MB only")
    quick = parser.parse_args().quick
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    found = [measure(each, 5 if quick else 20) for each in ((64,) if quick else (64, 256))]
    shutil.rmtree(Path(FOLDER))
    figures, ratios, bars = (
        [item for part in parts for item in part] for parts in zip(*found, strict=True)
    )
    command = "python -m benchmarks.checkpoint --quick" if quick else "make bench-checkpoint"
    report = Report(
        "checkpoint", command, machine(), versions("torch", "safetensors"), figures, ratios, bars
    )
    publish(report)
    sys.exit(not all(bar.holds for bar in bars))


if __name__ == "__main__":
    main()
