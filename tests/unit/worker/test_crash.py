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
INTERVAL = 2
"""Steps between two saves."""
WIDTH = 400_000
"""Of the model: a save takes several milliseconds also where the disk is quick, and a kill comes
within two of its begin."""
ROUNDS_AHEAD = 3
"""A flush is asked for when a save is due, and comes behind the two rounds that may be frozen."""

Told = tuple[int, int, bool]
"""Steps so far, the batch of the next one, and whether the saver is at work."""


def life(path: Path, width: int, wire: Connection) -> None:
    """Train for ever, and tell every step."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    run = Run(dssync.Checkpoint(path, every_steps=INTERVAL, keep=2), width)
    saver = run.sync._session._saver
    data = range(1 << 20)
    sampler = run.sync.batches(data, 1, shuffle=False)
    for batch in run.sync.run(DataLoader(data, batch_sampler=sampler)):  # type: ignore[arg-type]
        wire.send((run.steps.count, int(batch), saver.busy))
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
        process = context.Process(target=life, args=(tmp_path, WIDTH, theirs))
        process.start()
        theirs.close()
        told: list[Told] = [mine.recv()]
        # Every step trains on one batch, so the resumed data and the resumed state must agree.
        assert told[0][:2] == (kept, kept)
        told += [mine.recv() for _ in range(dice.randint(5, 60))]
        if dice.random() < 0.8:
            until_it_saves(tmp_path)
        time.sleep(dice.uniform(0, 0.002))
        kill(process)
        told += rest_of(mine)
        torn += bool(list(tmp_path.glob(".saving-*")))
        newest = next(checkpoint.newest(tmp_path, lambda error: pytest.fail(str(error))), None)
        kept = 0 if newest is None else newest.state["steps"]["count"]
        assert kept <= told[-1][0] + 1
        # Lost may be one interval, the steps until its flush, and all that passed beside a save.
        idle = [step for step, _, saves in told if step >= kept and not saves]
        assert len(idle) <= INTERVAL + ROUNDS_AHEAD
    assert kept > CRASHES
    assert torn > CRASHES // 2, "many kills must hit saves"


def until_it_saves(path: Path) -> None:
    while not any(name.startswith(".saving-") for name in os.listdir(path)):
        os.sched_yield()


def kill(process: BaseProcess) -> None:
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def rest_of(wire: Connection) -> list[Told]:
    """Return what was told before the end."""
    told = []
    with contextlib.suppress(EOFError):
        while True:
            told.append(wire.recv())
    return told
