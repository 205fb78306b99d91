"""One life of a training script that saves itself."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import dssync

SIZE, BATCH, EPOCHS = 26, 2, 3


class Steps:
    """Something with state beside model and optimizer."""

    def __init__(self) -> None:
        self.count = 0

    def state_dict(self) -> dict[str, object]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.count = int(str(state["count"]))


def momentum(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


class Run:
    """One life of a training script with dropout and momentum."""

    def __init__(
        self,
        saves: dssync.Checkpoint | Path | None,
        width: int = 8,
        optimized: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer] = momentum,
        steps: Steps | None = None,
    ) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(1, width), torch.nn.Dropout(0.5))
        optimizer = optimized(list(self.model.parameters()))
        self.sync = dssync.GroupSync(self.model, optimizer, checkpoint=saves)
        self.steps = steps or Steps()
        self.sync.register("steps", self.steps)
        self.optimizer = optimizer
        self.seen = Counter[int]()

    def train(
        self,
        until: Callable[[int], bool] = lambda _: False,
        *,
        size: int = SIZE,
        batch: int = BATCH,
        epochs: int = EPOCHS,
        shuffle: bool = True,
    ) -> "Run":
        sampler = self.sync.batches(range(size), batch, shuffle)
        loader = DataLoader(range(size), batch_sampler=sampler)  # type: ignore[arg-type]
        for samples in self.sync.run(loader, epochs):
            self.seen.update(samples.tolist())
            self.model(samples.float().unsqueeze(1)).square().mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            self.steps.count += 1
            self.sync.step()
            if until(self.steps.count):
                break
        self.sync.close()
        return self
