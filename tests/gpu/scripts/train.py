"""Trains a small model on the GPU; one worker kills itself once in the middle."""

import json
import os
import signal
import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

import dssync

STEPS_BEFORE_THE_KILL = 20

torch.manual_seed(0)
inputs = torch.randn(4096, 32)
data = TensorDataset(inputs, inputs.sum(1, keepdim=True))
model = torch.nn.Sequential(torch.nn.Linear(32, 512), torch.nn.Tanh(), torch.nn.Linear(512, 1))
model.cuda()
optimizer = torch.optim.SGD(model.parameters(), 0.01)
unlucky = os.environ["LOCAL_RANK"] == "3" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"

with dssync.GroupSync(model, optimizer) as sync:
    batches = sync.batches(data, batch_size=8)
    attempts = 0
    loader = DataLoader(data, batch_sampler=batches)
    for step, (x, y) in enumerate(sync.run(loader, epochs=2)):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x.cuda()), y.cuda()).backward()
        optimizer.step()
        sync.step()
        if sync.last_round is not None:
            attempts += sync.last_round.attempts
        if unlucky and step == STEPS_BEFORE_THE_KILL:
            os.kill(os.getpid(), signal.SIGKILL)
    weights = torch.cat([p.detach().flatten().cpu() for p in model.parameters()])
    result = {
        "pid": os.getpid(),
        "restarts": int(os.environ["TORCHELASTIC_RESTART_COUNT"]),
        "retried": attempts > 0,
        "world_size": sync.world_size,
        "sum": weights.double().sum().item(),
        "finite": bool(torch.isfinite(weights).all()),
    }
    Path(sys.argv[1], f"{os.environ['LOCAL_RANK']}.json").write_text(json.dumps(result))
