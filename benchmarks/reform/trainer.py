"""The script that is killed: a training loop whose result each round can be foretold.

Before a round a worker sets its parameters to a number of its own, so the mean of any group is
known. Sleeping stands for the computing of a step, as on an accelerator. Every round goes to the
benchmark as one JSON line; it checks them, because only it knows whose values counted.

    dssync run … benchmarks/reform/trainer.py ADDRESS BYTES
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time

import torch
from torch.utils.data import DataLoader

import dssync

WORK_SECONDS = 0.02
SAMPLES = 100_000_000
"""More than any run trains on; each is a batch."""
ROUND_SHARE = 1 / 1024
"""What a round adds to the value, so that a result of another round is seen to be wrong."""


class Teller:
    """Tells the benchmark what happens here."""

    def __init__(self, address: str, member: str) -> None:
        self._common = {"member": member, "pid": os.getpid()}
        self._end = socket.socket(socket.AF_UNIX)
        self._end.connect(address)

    def tell(self, event: str, at_seconds: float, **fields: object) -> None:
        """Send one line; ``at_seconds`` is monotonic, one clock for the whole machine."""
        line = {"event": event, "time": at_seconds, **self._common, **fields}
        with contextlib.suppress(BrokenPipeError):
            self._end.sendall(json.dumps(line).encode() + b"\n")


def own_value(member: str, round_number: int) -> float:
    """Return what a member's parameters are before a round."""
    slot, local_rank, _ = member.split(".")
    return int(slot) * 8 + int(local_rank) + round_number * ROUND_SHARE


def main(address: str, payload_bytes: int) -> None:
    model = torch.nn.Module()
    model.values = torch.nn.Parameter(torch.zeros(payload_bytes // 4))
    sync = dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=1.0))
    data = range(SAMPLES)
    loader = DataLoader(data, batch_sampler=sync.batches(data, 1, shuffle=False))
    teller = Teller(address, sync.member)
    told_to_stop: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, _: told_to_stop.append(number))
    teller.tell("ready", time.monotonic())
    joined = False
    for batch in sync.run(loader):
        if not joined:
            last = -1 if sync.last_round is None else sync.last_round.round
            teller.tell("joined", time.monotonic(), round=last, world=sync.world_size)
            joined = True
        if told_to_stop:
            sync.stop()
        time.sleep(WORK_SECONDS)
        upcoming = 0 if sync.last_round is None else sync.last_round.round + 1
        model.values.data.fill_(own_value(sync.member, upcoming))
        sync.step()
        report(teller, sync, time.monotonic(), int(batch[0]), model.values)
    teller.tell("left", time.monotonic())
    sync.close()


def report(
    teller: Teller, sync: dssync.GroupSync, now: float, batch: int, values: torch.Tensor
) -> None:
    outcome = sync.last_round
    assert outcome is not None
    low, high = torch.aminmax(values.detach())
    teller.tell(
        "round",
        now,
        round=outcome.round,
        kind=outcome.kind,
        attempts=outcome.attempts,
        result=outcome.result,
        members=outcome.members,
        seconds=outcome.seconds,
        world=sync.world_size,
        low=float(low),
        high=float(high),
        batch=batch,
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
