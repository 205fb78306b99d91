"""A training loop without training: one gloo all-reduce of the given size per step, for ever."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

from benchmarks.reform.log import StepLog
from benchmarks.reform.trainer import WORK_SECONDS


def main(folder: Path, payload_bytes: int) -> None:
    torch.set_num_threads(1)
    log = StepLog(folder, os.environ["MEMBER"])
    dist.init_process_group("gloo")
    payload = torch.empty(payload_bytes // 4)
    round_number = 0
    while True:
        time.sleep(WORK_SECONDS)
        payload.fill_(dist.get_rank())
        dist.all_reduce(payload)
        world = dist.get_world_size()
        log.add(round_number, bool((payload == world * (world - 1) / 2).all()))
        round_number += 1


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
