"""Handwritten digits by a small convolutional network, trained elastically.

Runs alone (``python train.py``) or in any number of workers (``dssync run``): the lines that
speak of ``sync`` are all that a plain training loop needs. The data comes with scikit-learn.
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dssync

FOLDS = 5


def make_model() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 24, 3, padding=1, bias=False),
        nn.BatchNorm2d(24),
        nn.ReLU(),
        nn.Conv2d(24, 48, 3, padding=1, bias=False),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(48 * 4 * 4, 10),
    )


def load(fold: int) -> tuple[TensorDataset, TensorDataset]:
    """Return the training part and the held-out fifth; images are (1, 8, 8) in 0 ... 1."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[order[fold::FOLDS]] = True
    return (
        TensorDataset(images[~held_out], labels[~held_out]),
        TensorDataset(images[held_out], labels[held_out]),
    )


@torch.no_grad()
def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, float]:
    model.eval()
    logits = model(images)
    return {
        "accuracy": (logits.argmax(1) == labels).float().mean().item(),
        "loss": nn.functional.cross_entropy(logits, labels).item(),
    }


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fold", type=int, default=0, choices=range(FOLDS), help="held-out fifth")
    parser.add_argument("--out", type=Path, default=Path("result.json"))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    train, held_out = load(args.fold)
    model, started = make_model(), time.monotonic()
    optimizer = torch.optim.SGD(model.parameters(), args.learning_rate, momentum=0.9)

    with dssync.GroupSync(model, optimizer) as sync:
        batches = sync.batches(train, batch_size=args.batch_size)
        for images, labels in sync.run(DataLoader(train, batch_sampler=batches), args.epochs):
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * (1 + math.cos(math.pi * sync.progress)) / 2
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            sync.step()
        if sync.is_first:
            result = evaluate(model, *held_out.tensors)
            result |= {"world_size": sync.world_size, "seconds": time.monotonic() - started}
            args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
