"""The step log of the re-form benchmark: one JSON line per round and worker.

Subjects differ in everything but this file: whoever trains appends to it, and the one who kills
reads it. Times are ``time.monotonic``, which is one clock for all processes of a machine.
"""

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Step:
    """One round at one worker.

    Attributes:
        time: Seconds of the monotonic clock, after the round.
        member: Who; a replaced process may go on under the old name.
        round: Number of the round.
        ok: Whether the round was committed with the right result.
    """

    time: float
    member: str
    round: int
    ok: bool


class StepLog:
    """Appends the rounds of one worker; a line is written whole or not at all."""

    def __init__(self, folder: Path, member: str) -> None:
        self._member = member
        path = folder / f"{member}.{os.getpid()}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    def add(self, round_number: int, ok: bool) -> None:
        """Write that a round has just ended."""
        step = Step(time.monotonic(), self._member, round_number, ok)
        os.write(self._file, json.dumps(asdict(step)).encode() + b"\n")


class StepReader:
    """Follows the logs of all workers, also of those that start later."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def new(self) -> list[Step]:
        """Return what was written since the last call, by time."""
        steps = [step for path in self._folder.glob("*.jsonl") for step in self._read(path)]
        return sorted(steps, key=lambda step: step.time)

    def _read(self, path: Path) -> list[Step]:
        with path.open("rb") as file:
            file.seek(self._offsets.get(path, 0))
            written, newline, _ = file.read().rpartition(b"\n")
        self._offsets[path] = self._offsets.get(path, 0) + len(written) + len(newline)
        return [Step(**json.loads(line)) for line in written.splitlines()]


def reformed(steps: Iterable[Step], killed_at: float, members: frozenset[str]) -> float | None:
    """Return how long it took until a round was completed by all members again.

    Only reports after the kill count, so the round that was under way counts if all that are
    named report it; who names the killed worker waits for its replacement.

    Args:
        steps: Steps by time.
        killed_at: Monotonic seconds of the kill.
        members: Who has to report a committed round.

    Returns:
        Seconds from the kill to the last report of the first such round; None if there is none.
    """
    reports: dict[int, set[str]] = {}
    for step in steps:
        if step.ok and step.time > killed_at:
            reports.setdefault(step.round, set()).add(step.member)
            if reports[step.round] >= members:
                return step.time - killed_at
    return None
