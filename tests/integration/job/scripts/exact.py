"""Trains on a little data of two kinds and says which samples each committed round counts.

What is told here is the test's own record: it comes from the training loop and from outcomes of
rounds, and not from what dssync counts.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from voice import LIFE, RANK, SPEC, announce, say

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
    """Batches that this member trained on since its last committed round."""

    def __init__(self) -> None:
        self.pending: list[list[int]] = []

    @property
    def samples(self) -> list[int]:
        return [sample for batch in self.pending for sample in batch]

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        # A donor's values replace this member's: what it had learned is gone.
        self.pending.clear()

    def on_round(self, outcome: dssync.Outcome) -> None:
        if outcome.result == "skipped":
            return
        told = {"samples": self.samples, "batches": self.pending, **vars(outcome)}
        say("round", own=sync.member, **told)
        self.pending = []


def feed() -> Any:
    """Return what the run goes through, in the way that is asked for."""
    size, workers = SPEC["batch_size"], SPEC.get("loader_workers", 0)
    more = {"num_workers": workers, "persistent_workers": workers > 0}
    match SPEC.get("feed", "batches"):
        case "sampler":
            return DataLoader(dataset, size, sampler=sync.sampler(dataset), **more)
        case "shard":
            return sync.shard(dataset, size, samples=len(dataset))
        case "names":
            cut = len(dataset) // 3
            parts = [Subset(dataset, range(cut)), Subset(dataset, range(cut, len(dataset)))]
            return {
                name: DataLoader(part, batch_sampler=sync.batches(part, size), **more)
                for name, part in zip(("short", "long"), parts, strict=True)
            }
        case _:
            return DataLoader(dataset, batch_sampler=sync.batches(dataset, size), **more)


model, data = digits() if SPEC["kind"] == "digits" else charlm()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
tally = Tally()
sync = dssync.GroupSync(model, optimizer, **SPEC.get("sync", {}))
sync.register("tally", tally)
sync.on_round(tally.on_round)
dataset = TensorDataset(torch.arange(len(data)), data)
steps, handed_out = 0, 0
for found in sync.run(feed(), epochs=SPEC["epochs"]):
    parts = list(found.values()) if isinstance(found, dict) else [found]
    indices, values = (torch.cat(each) for each in zip(*parts, strict=True))
    tally.pending.append(indices.tolist())
    loss_of(model, values).backward()
    handed_out += 1
    if handed_out % SPEC.get("accumulate", 1):
        continue
    optimizer.step()
    optimizer.zero_grad()
    if PACE.exists():
        # The faster the data goes, the slower: it must outlast the faults.
        time.sleep(SPEC["pace_seconds"] * (10 if sync.progress > 0.7 else 1))
    say("step", own=sync.member, pending=tally.samples, batches=tally.pending)
    sync.step()
    steps += 1
    if SPEC.get("away_at") == [RANK, LIFE, steps]:
        with sync.away():
            announce("away", own=sync.member)
values = torch.cat([each.detach().flatten() for each in model.parameters()])
digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
say("over", own=sync.member, progress=sync.progress, digest=digest)
