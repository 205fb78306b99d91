"""What a launcher says about itself: log lines, and the series that its decisions feed."""

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from typing import TextIO

from dssync import contract
from dssync.agent.metrics import Metrics
from dssync.agent.series import LOSS_CAUSES
from dssync.agent.supervisor import WorkerExit
from dssync.agent.verdict import Verdict
from dssync.control.events import Note
from dssync.control.measurements import Delta

KEPT_LINES = 500
"""Lines that are kept for those who ask later, 0.4 kB each; all are in the launcher's output."""
EXPLAINED_VERDICTS = (contract.VERDICT_USER_ERROR, contract.VERDICT_FENCED)
"""A worker that asks not to be restarted has its own line, and what was wanted needs none."""
MEMBERSHIP_KINDS = ("join", "leave", "evict")


class Reporter:
    """Writes ``key=value`` lines and keeps the launcher's registry up to date.

    Args:
        metrics: the registry.
        stream: where lines go; INFO is what a person may act on, there is nothing below.
    """

    def __init__(self, metrics: Metrics, stream: TextIO | None = None) -> None:
        self._metrics = metrics
        self._stream = stream or sys.stderr
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._counted = 0

    def log(self, event: str, **fields: object) -> None:
        """Write one line, with the monotonic time that all processes of a machine share."""
        text = " ".join(f"{key}={value}" for key, value in fields.items() if value != "")
        line = f"dssync {event} {text}".rstrip() + f" monotonic_seconds={time.monotonic():.4f}\n"
        self._write(line)
        self._lines.append(line.rstrip("\n"))
        self._counted += 1

    def tell(self, sentence: str) -> None:
        """Write one sentence for people."""
        self._write(f"dssync: {sentence}\n")

    def lines_from(self, start: int) -> tuple[int, tuple[str, ...]]:
        """Return the number of the next line, and the lines from ``start`` on that are kept."""
        first = self._counted - len(self._lines)
        return self._counted, tuple(self._lines)[max(0, start - first) :]

    def note(self, note: Note) -> None:
        """Report a decision of the coordinator."""
        if note.kind in MEMBERSHIP_KINDS:
            self._metrics.membership_changed(note.kind)
        if note.kind == "reform":
            # A member that leaves says why in its own words.
            cause = note.cause if note.cause in LOSS_CAUSES.split() else "leave"
            self._metrics.reformed(cause, note.seconds)
        if note.kind == "round":
            return
        seconds = f"{note.seconds:.4f}" if note.seconds else ""
        counts = dict(word.split("=") for word in note.counts.split())
        self.log(
            note.kind,
            member=note.member,
            cause=note.cause,
            round=note.round,
            seconds=seconds,
            **counts,
        )

    def metrics(self, delta: Delta) -> None:
        """Merge what a worker measured."""
        self._metrics.apply(delta)

    def census(self, members: Mapping[str, int], view_sequence: int) -> None:
        """Show the members by state; only the coordinator's launcher knows them."""
        self._metrics.set("dssync_coordinator_leader", 1)
        self._metrics.set("dssync_view_sequence", view_sequence)
        for state, count in members.items():
            self._metrics.set("dssync_members", count, state=state)

    def no_census(self, states: Iterable[str]) -> None:
        """Show no members any more: another launcher coordinates, or nobody does."""
        self._metrics.set("dssync_coordinator_leader", 0)
        for state in states:
            self._metrics.set("dssync_members", 0, state=state)

    def heartbeat_answered(self, seconds: float) -> None:
        """Record how long the coordinator's answer took."""
        self._metrics.observe("dssync_heartbeat_rtt_seconds", seconds)

    def refused(self) -> None:
        """Count a peer that does not hold the job's token."""
        self._metrics.increment("dssync_connections_refused_total")

    def drained(self, seconds: float) -> None:
        """Record how long it took from the signal to the end of the workers."""
        self._metrics.observe("dssync_drain_duration_seconds", seconds)

    def exited(self, exit_: WorkerExit, again: bool) -> None:
        """Report the end of a worker."""
        spec = exit_.worker.spec
        if again:
            self._metrics.worker_restarted()
            self._metrics.membership_changed("restart")
        if exit_.returncode != 0:
            self.log(
                "exited",
                local_rank=spec.local_rank,
                code=exit_.returncode,
                action="restart" if again else "none",
            )

    def summary(self, verdict: Verdict) -> None:
        """Say how the pod ended and why, with the end of what each failed worker wrote."""
        self.log("ended", verdict=verdict.name, exit_code=verdict.process_exit_code)
        if verdict.name in EXPLAINED_VERDICTS:
            self.tell(verdict.reason)
        for exit_ in verdict.failed:
            rank, code = exit_.worker.spec.local_rank, exit_.returncode
            self._write(f"dssync: worker {rank} ended with {code}\n{exit_.error}\n")

    def _write(self, text: str) -> None:
        # Whoever read the log may be gone, its disk may be full. The job goes on all the same.
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
