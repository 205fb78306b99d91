"""One round and one bare all-reduce in turn, in the same processes, with the same members.

Each half of a pair begins when all workers have left a tiny all-reduce over everybody, with the
values just written, as an optimizer's step leaves them. The first half is now the round, now the
bare all-reduce. Both groups of a world of eight work at the same time in either half.

    dssync run … benchmarks/reform/pairs.py FOLDER BYTES PAIRS
"""

import hashlib
import json
import os
import sys
import time
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

import dssync

PERIOD = 4
WARM_ROUNDS = 3 * PERIOD
GLOO_THREADS = 2
"""As in dssync's own groups."""
TIMEOUT = timedelta(seconds=60)


class Bare:
    """Process groups over gloo without anything around them."""

    def __init__(self, folder: Path, member: str, everybody: list[str]) -> None:
        self._folder = folder
        self._member = member
        self._groups: dict[tuple[str, ...], dist.ProcessGroupGloo] = {}
        self._tiny = torch.zeros(1)
        self._everybody = tuple(everybody)

    def allreduce(self, members: tuple[str, ...], tensor: torch.Tensor) -> None:
        """Sum over some members and wait for it."""
        if members not in self._groups:
            self._groups[members] = self._build(members)
        self._groups[members].allreduce([tensor], dist.AllreduceOptions()).wait()

    def until_all_are_ready(self) -> None:
        """Leave when everybody has come."""
        self.allreduce(self._everybody, self._tiny)

    def _build(self, members: tuple[str, ...]) -> dist.ProcessGroupGloo:
        name = hashlib.sha256("|".join(members).encode()).hexdigest()
        options = dist.ProcessGroupGloo._Options()
        options._timeout, options._threads = TIMEOUT, GLOO_THREADS
        device = dist.ProcessGroupGloo.create_device(hostname="127.0.0.1", lazy_init=False)
        options._devices = [device]
        store = dist.FileStore(str(self._folder / name), len(members))
        return dist.ProcessGroupGloo(store, members.index(self._member), len(members), options)


def meet(folder: Path, member: str, count: int) -> list[str]:
    """Return the members of the world, in one order for all."""
    store = dist.FileStore(str(folder / "everybody"), count)
    number = store.add("met", 1)
    store.set(f"member {number}", member)
    return sorted(store.get(f"member {each + 1}").decode() for each in range(count))


def main(folder: Path, payload_bytes: int, pairs: int) -> None:
    model = torch.nn.Module()
    model.values = torch.nn.Parameter(torch.ones(payload_bytes // 4))
    payload = torch.ones(payload_bytes // 4)
    sync = dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=1.0))
    groups: dict[int, tuple[str, ...]] = {}
    for _ in range(WARM_ROUNDS):
        sync.step()
        assert sync.last_round is not None
        groups[sync.last_round.round % PERIOD] = sync.last_round.members
    bare = Bare(folder, sync.member, meet(folder, sync.member, sync.world_size))
    for number in sorted(groups):
        bare.until_all_are_ready()
        bare.allreduce(groups[number], payload)
    with (folder / f"{sync.member}.jsonl").open("w") as log:
        for pair in range(pairs):
            members = groups[(sync.last_round.round + 1) % PERIOD]
            run_bare = partial(bare.allreduce, members, payload)
            halves = [("round", sync.step), ("bare", run_bare)][:: 1 if pair % 2 else -1]
            line: dict[str, object] = {"pair": pair, "members": members}
            for name, run in halves:
                model.values.data.fill_(1e-3)
                payload.fill_(1e-3)
                bare.until_all_are_ready()
                begun = time.monotonic()
                run()
                line[name] = (begun, time.monotonic())
            if sync.last_round.members != members:
                raise RuntimeError(f"expected the group {members}, got {sync.last_round}")
            log.write(json.dumps(line) + "\n")
    bare.until_all_are_ready()
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
