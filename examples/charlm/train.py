"""A small transformer that learns to write like Python's standard library, byte by byte.

Runs alone (``python train.py``) or in any number of workers (``dssync run``). The text is the
standard library of the interpreter that runs the script, so nothing is downloaded; every worker
must run the same Python version.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import dssync

CONTEXT = 64
BYTES = 256


class Transformer(nn.Module):
    """Decoder of two layers over bytes."""

    def __init__(self, width: int = 96, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Embedding(BYTES, width)
        self.position = nn.Parameter(torch.randn(CONTEXT, width) * 0.02)
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, BYTES)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(CONTEXT))

    def forward(self, text: Tensor) -> Tensor:
        """Return logits (batch, CONTEXT, BYTES) of the byte after each of (batch, CONTEXT)."""
        hidden = self.layers(self.embed(text) + self.position, mask=self.mask, is_causal=True)
        return self.head(self.norm(hidden))


def load(max_bytes: int) -> tuple[TensorDataset, TensorDataset]:
    """Cut the text into pieces of CONTEXT + 1 bytes; every tenth is held out."""
    files = sorted(Path(os.__file__).parent.glob("*.py"))
    text = b"".join(path.read_bytes() for path in files)[:max_bytes]
    whole = len(text) // (CONTEXT + 1) * (CONTEXT + 1)
    pieces = torch.frombuffer(bytearray(text[:whole]), dtype=torch.uint8).view(-1, CONTEXT + 1)
    held_out = torch.arange(len(pieces)) % 10 == 0
    return TensorDataset(pieces[~held_out]), TensorDataset(pieces[held_out])


def loss_of(model: nn.Module, pieces: Tensor) -> Tensor:
    text = pieces.long()
    return nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())


@torch.no_grad()
def evaluate(model: nn.Module, pieces: Tensor) -> dict[str, float]:
    model.eval()
    losses = [loss_of(model, part) * len(part) for part in pieces.split(256)]
    nats = torch.stack(losses).sum().item() / len(pieces)
    return {"loss": nats, "bits_per_byte": nats / math.log(2)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-bytes", type=int, default=1_000_000, help="how much text to read")
    parser.add_argument("--out", type=Path, default=Path("result.json"))
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    train, held_out = load(args.max_bytes)
    model, started = Transformer(), time.monotonic()
    optimizer = torch.optim.AdamW(model.parameters(), args.learning_rate)

    with dssync.GroupSync(model, optimizer) as sync:
        batches = sync.batches(train, batch_size=args.batch_size)
        for (pieces,) in sync.run(DataLoader(train, batch_sampler=batches), args.epochs):
            for group in optimizer.param_groups:
                group["lr"] = args.learning_rate * (1 + math.cos(math.pi * sync.progress)) / 2
            optimizer.zero_grad()
            loss_of(model, pieces).backward()
            optimizer.step()
            sync.step()
        if sync.is_first:
            result = evaluate(model, *held_out.tensors)
            result |= {"world_size": sync.world_size, "seconds": time.monotonic() - started}
            args.out.write_text(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
