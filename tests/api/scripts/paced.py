"""Trains next to nothing for ever, at a pace that leaves the machine to pods that start."""

import time

import torch
from torch.utils.data import DataLoader

import dssync

PACE_SECONDS = 0.02

torch.set_num_threads(1)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
sync = dssync.GroupSync(model, optimizer)
samples = range(1 << 20)
loader = DataLoader(samples, batch_sampler=sync.batches(samples, batch_size=1))
for _ in sync.run(loader, epochs=1):
    time.sleep(PACE_SECONDS)
    sync.step()
