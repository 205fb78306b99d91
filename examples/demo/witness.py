"""Runs ``examples/digits/train.py`` and writes down which samples its loop is given.

A witness outside the system: a sample is known by the bytes that the loop trains on, whatever the
coordinator counts. `tally` adds up what the witnesses of all workers wrote.
"""

import json
import os
import runpy
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor

import dssync

SCRIPT = Path(__file__).parents[1] / "digits" / "train.py"
VARIABLE = "DEMO_SAMPLES"


def names_of(images: Tensor, labels: Tensor) -> list[int]:
    """Return a number for each sample; equal samples have equal ones."""
    return [
        int.from_bytes(blake2b(image.numpy().tobytes(), digest_size=6).digest()) * 16 + int(label)
        for image, label in zip(images, labels, strict=True)
    ]


class Witness(dssync.GroupSync):
    """A ``GroupSync`` that tells what it hands out, and which rounds it applies."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._pending: list[int] = []
        # Opened for appending: each line is one write, and a killed worker loses none.
        self._file = os.open(os.environ[VARIABLE], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self.register("witness", self)
        self.on_round(self._tell_round)

    def run(self, loader: Any, epochs: int = 1) -> Iterator[Any]:
        """Yield what ``GroupSync.run`` yields."""
        for images, labels in super().run(loader, epochs):
            self._pending += names_of(images, labels)
            yield images, labels

    def step(self) -> None:
        """Say what goes into the next round, then run it."""
        self._tell(event="step", pending=self._pending)
        super().step()

    def state_dict(self) -> dict[str, object]:
        """Return nothing: joiners learn nothing of this member's samples."""
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Forget what was trained on: a donor's values replace it."""
        del state
        self._pending.clear()

    def _tell_round(self, outcome: dssync.Outcome) -> None:
        if outcome.result != "skipped":
            self._tell(event="round", samples=self._pending, **vars(outcome))
            self._pending = []

    def _tell(self, **line: object) -> None:
        os.write(self._file, (json.dumps({"own": self.member, **line}) + "\n").encode())


if __name__ == "__main__":
    dssync.GroupSync = Witness  # type: ignore[misc]
    runpy.run_path(str(SCRIPT), run_name="__main__")
