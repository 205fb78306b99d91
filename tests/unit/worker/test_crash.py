"""A training process that is killed at random moments of its saves goes on from a whole one."""

import contextlib
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from torch.utils.data import DataLoader

import dssync
from dssync.worker import checkpoint
from unit.worker.lives import Run

CRASHES = int(os.environ.get("SOAK_CRASHES", "15"))


def life(path: Path, width: int, wire: Connection) -> None:
    """Train for ever, and tell every step."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run = Run(dssync.Checkpoint(path, every_steps=2, keep=2), width)
    data = range(1 << 20)
    sampler = run.sync.batches(data, 1, shuffle=False)
    for batch in run.sync.run(DataLoader(data, batch_sampler=sampler)):  # type: ignore[arg-type]
        wire.send((run.steps.count, int(batch)))
        time.sleep(0.002)
        run.steps.count += 1
        run.sync.step()


@pytest.mark.timeout(300)
def test_a_crash_at_any_moment_of_a_save_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "dssync.worker.groupsync"])
    dice = random.Random(3)
    kept, torn = 0, 0
    for _ in range(CRASHES):
        mine, theirs = context.Pipe(duplex=False)
        process = context.Process(target=life, args=(tmp_path, 100_000, theirs))
        process.start()
        theirs.close()
        step, batch = mine.recv()
        # Every step trains on one batch, so the resumed data and the resumed state must agree.
        assert step == batch == kept
        for _ in range(dice.randint(5, 60)):
            step, _ = mine.recv()
        if dice.random() < 0.8:
            until_it_saves(tmp_path)
        time.sleep(dice.uniform(0, 0.002))
        kill(process)
        told = [step, *rest_of(mine)]
        torn += bool(list(tmp_path.glob(".saving-*")))
        newest = next(checkpoint.newest(tmp_path, lambda error: pytest.fail(str(error))), None)
        kept = 0 if newest is None else newest.state["steps"]["count"]
        # One interval, the steps of the save that was torn, and the flush before it.
        assert kept <= told[-1] + 1
    assert kept > CRASHES
    assert torn > CRASHES // 2, "many kills must hit saves"


def until_it_saves(path: Path) -> None:
    while not any(name.startswith(".saving-") for name in os.listdir(path)):
        os.sched_yield()


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def rest_of(wire: Connection) -> list[int]:
    """Return the steps that were told before the end."""
    told = []
    with contextlib.suppress(EOFError):
        while True:
            told.append(wire.recv()[0])
    return told
