"""Trains on a little data of two kinds and says which samples each committed round counts.

What is told here is the test's own record: it comes from the training loop and from outcomes of
rounds, and not from what dssync counts.
"""

import hashlib
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from voice import SPEC, say

import dssync

torch.set_num_threads(1)
torch.manual_seed(0)
PACE = Path(SPEC["pace_file"])
"""While it exists, steps are slow, so that faults find the job under way."""
PIXELS, CONTEXT = 64, 16


class Letters(nn.Module):
    """A transformer over bytes, as in ``examples/charlm`` but smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(256, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 256)

    def forward(self, text: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(self.embed(text)))


def digits() -> tuple[nn.Module, torch.Tensor]:
    """Images with batch statistics and dropout, as in ``examples/digits`` but smaller."""
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * PIXELS, 10),
    )
    return model, torch.rand(SPEC["samples"], PIXELS)


def charlm() -> tuple[nn.Module, torch.Tensor]:
    return Letters(), torch.randint(0, 256, (SPEC["samples"], CONTEXT))


def loss_of(model: nn.Module, data: torch.Tensor) -> torch.Tensor:
    if data.is_floating_point():
        return nn.functional.cross_entropy(model(data), data.sum(1).long() % 10)
    return nn.functional.cross_entropy(model(data[:, :-1]).flatten(0, 1), data[:, 1:].flatten())


class Tally:
    """Samples that this member trained on since its last committed round."""

    def __init__(self) -> None:
        self.pending: list[int] = []

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        # A donor's values replace this member's: what it had learned is gone.
        self.pending.clear()

    def on_round(self, outcome: dssync.Outcome) -> None:
        if outcome.result == "skipped":
            return
        say("round", own=sync.member, samples=self.pending, **vars(outcome))
        self.pending = []


model, data = digits() if SPEC["kind"] == "digits" else charlm()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
tally = Tally()
sync = dssync.GroupSync(model, optimizer, **SPEC.get("sync", {}))
sync.register("tally", tally)
sync.on_round(tally.on_round)
dataset = TensorDataset(torch.arange(len(data)), data)
batches = sync.batches(dataset, batch_size=SPEC["batch_size"])
loader = DataLoader(dataset, batch_sampler=batches, num_workers=SPEC.get("loader_workers", 0))
for number, (indices, values) in enumerate(sync.run(loader, epochs=SPEC["epochs"])):
    tally.pending += indices.tolist()
    loss_of(model, values).backward()
    if (number + 1) % SPEC.get("accumulate", 1):
        continue
    optimizer.step()
    optimizer.zero_grad()
    if PACE.exists():
        # The faster the data goes, the slower: it must outlast the faults.
        time.sleep(SPEC["pace_seconds"] * (10 if sync.progress > 0.7 else 1))
    say("step", own=sync.member, pending=tally.pending)
    sync.step()
values = torch.cat([each.detach().flatten() for each in model.parameters()])
digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
say("over", own=sync.member, progress=sync.progress, digest=digest)
