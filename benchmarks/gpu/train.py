"""The character transformer with 100 million parameters in bf16, for ``make bench-gpu``.

Worker 3 kills itself after some rounds, once; each worker writes what its rounds took.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import dssync
from examples.charlm.train import Transformer, load, loss_of

WIDTH, HEADS, LAYERS = 768, 12, 15
EVERY = 4
STEPS_BEFORE_THE_KILL = 60


def main() -> None:
    rank = os.environ["LOCAL_RANK"]
    unlucky = rank == "3" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    started = time.monotonic()
    torch.manual_seed(0)
    model = Transformer(WIDTH, HEADS, LAYERS).to("cuda", torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    train, _ = load(200_000)
    rounds: list[dict[str, object]] = []
    with dssync.GroupSync(model, optimizer, every=EVERY) as sync:
        sync.on_round(lambda each: rounds.append({"seconds": each.seconds, "result": each.result}))
        batches = sync.batches(train, batch_size=8)
        for step, (pieces,) in enumerate(sync.run(DataLoader(train, batch_sampler=batches), 1)):
            if step == 0:
                joined = time.monotonic() - started
            optimizer.zero_grad()
            loss = loss_of(model, pieces.cuda())
            loss.backward()
            optimizer.step()
            sync.step()
            if unlucky and step == STEPS_BEFORE_THE_KILL:
                os.kill(os.getpid(), signal.SIGKILL)
    result = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": loss.item(),
        "joined_seconds": joined,
        "rounds": rounds,
    }
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main()
