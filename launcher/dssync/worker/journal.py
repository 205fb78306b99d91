"""A member's part of the view log, written by the training thread (``control.viewlog``).

Each record is one write to a file that is open for appending, so that a process that is killed
has written all that its mates may have seen, and several processes share a file. The launcher
makes the file durable now and then; a machine that fails may cost the last second.
"""

import os
from collections.abc import Callable
from pathlib import Path

from dssync.control import messages as m
from dssync.control.viewlog import (
    FORMAT,
    Applied,
    Attempt,
    Donated,
    Draw,
    Entered,
    Left,
    Life,
    Point,
    Saved,
    Skipped,
    Told,
    line_of,
)
from dssync.worker.word import tell

VARIABLES = (
    "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE",
    "ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT", "DSSYNC_SLOT", "OMP_NUM_THREADS",
)  # fmt: skip
"""What tells workers apart, and what changes the order of sums."""


class Journal:
    """Writes what this member does; nothing where no log is kept.

    Args:
        member: key of this member.
        path: of the log; empty: none is kept.
    """

    def __init__(self, member: str, path: str) -> None:
        self._member = member
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600) if path else -1
        self._drawn: list[Draw] = []

    @property
    def kept(self) -> bool:
        """Whether there is a log."""
        return self._file >= 0

    def began(self, sync: m.SyncSettings, workers: int) -> None:
        """Note who this is."""
        told = tuple(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
        self._write(Life(self._member, FORMAT, sync, workers, told))

    def drew(self, track: int, batch: int) -> None:
        """Note a batch, or ``PASS_ENDS``; written with the next record."""
        if self.kept:
            self._drawn.append(Draw(track, batch))

    def entered(self, source: str, taken: Point | None, generation: int, first_round: int) -> None:
        """Note where the values come from with which this member trains from now on."""
        drawn = self._take_drawn()
        self._write(Entered(self._member, generation, source, taken, first_round, drawn))

    def donated(self, point: Point) -> None:
        """Note a copy for joiners."""
        self._write(Donated(self._member, point, self._take_drawn()))

    def attempt(self, term: int, assign: m.Assign, idle: bool, total: float) -> None:
        """Note that values go into a sum, before they do."""
        if self.kept:
            self._write(Attempt(self._member, term, idle, total.hex(), assign, self._take_drawn()))

    def applied(self, assign: m.Assign) -> None:
        """Note that a result is applied, before anybody hears of it."""
        if self.kept:
            self._write(Applied(self._member, assign.round, assign.attempt))

    def skipped(self, number: int, idle: bool) -> None:
        """Note that a round went on without this member."""
        self._write(Skipped(self._member, number, idle, self._take_drawn()))

    def saved(self, number: int, path: Path) -> None:
        """Note a checkpoint that was published."""
        self._write(Saved(self._member, number, str(path)))

    def left(self, over: bool, digest: Callable[[], str]) -> None:
        """Note that this member leaves."""
        if self.kept:
            told = digest() if over else ""
            self._write(Left(self._member, over, told, self._take_drawn()))

    def _take_drawn(self) -> tuple[Draw, ...]:
        drawn, self._drawn = tuple(self._drawn), []
        return drawn

    def _write(self, record: Told) -> None:
        """Write a record; a log with a hole would tell of another run, so it ends at an error."""
        if not self.kept:
            return
        line = line_of(record)
        try:
            written = os.write(self._file, line)
            if written < len(line):
                raise OSError(f"{written} of {len(line)} bytes were written")
        except OSError as error:
            file, self._file = self._file, -1
            if file >= 0:  # The writer of a checkpoint may have found out as well.
                os.close(file)
            # The training is worth more than its log.
            tell(f"{self._path} ends for {self._member}: {error}")
