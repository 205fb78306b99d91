"""What the two workers of `helm test` train: a line through points, on the processor."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import dssync

torch.manual_seed(1)
inputs = torch.randn(256, 4)
labels = inputs @ torch.tensor([[1.0], [-2.0], [3.0], [-4.0]])
dataset = TensorDataset(inputs, labels)
model = nn.Linear(4, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sync = dssync.GroupSync(model, optimizer)
for part, wanted in sync.run(DataLoader(dataset, batch_sampler=sync.batches(dataset, 8)), epochs=8):
    nn.functional.mse_loss(model(part), wanted).backward()
    optimizer.step()
    optimizer.zero_grad()
    sync.step()
error = nn.functional.mse_loss(model(inputs), labels).item()
if error > 0.1:
    raise SystemExit(f"the trial has learnt nothing: its error is {error:.3g}")
print(f"the trial has trained: its error is {error:.3g}")
