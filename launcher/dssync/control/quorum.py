"""When a coordinator may decide: the quorum rule, and the launchers that the rule counts.

A launcher that is lost without a confirmed exit may be on the other side of a partition, where
somebody else may have become coordinator meanwhile. While there is such a launcher, rounds are
frozen and committed only on a recent look at the arbiter, and the job is ended only on a look that
was begun after everybody had confirmed the end. A coordinator that stood still counts everybody as
missing until it hears them, and looks first in any case, where there is an arbiter to look at.
"""

from collections.abc import Iterable

from dssync.control.takeover import Launcher

EXIT_SECONDS = 1.0
"""A launcher that ends later than this after it was lost may have followed somebody else before."""
READ_SECONDS = 5.0
"""A look at the arbiter is worth this long, from when it was asked."""


class Quorum:
    """The launchers that are missing, and what the arbiter said last."""

    def __init__(self, *, any_side: bool = False) -> None:
        """Start with nobody missing.

        Args:
            any_side: go on without the arbiter, on either side of a partition.
        """
        self._any_side = any_side
        self._missing: dict[str, Launcher] = {}
        self._lost_seconds: dict[str, float] = {}
        self._ended_late = False
        self._owed_looks = 0
        """After a pause, whoever is heard."""
        self._returned_at: int | None = None
        """Looks that had been seen when somebody was found again last."""
        self._looked_seconds: float | None = None
        self._looks = 0
        self._looks_at_end: int | None = None

    @property
    def missing(self) -> tuple[Launcher, ...]:
        """Launchers that were lost and whose exits nothing has confirmed."""
        return tuple(self._missing.values())

    def lost(self, launcher: Launcher, now: float) -> None:
        """A launcher went without a word."""
        self._missing[launcher.uid] = launcher
        self._lost_seconds.setdefault(launcher.uid, now)

    def found(self, uid: str) -> None:
        """A launcher is back, or what it said before it was cut off has arrived."""
        if self._missing.pop(uid, None) is not None:
            del self._lost_seconds[uid]
            self._returned_at = self._looks

    def ended(self, uids: Iterable[str], now: float) -> None:
        """Launchers have ended for certain: what they did before that, only a look tells."""
        for uid in self._missing.keys() & set(uids):
            late = now - self._lost_seconds[uid] > EXIT_SECONDS
            self._ended_late = self._ended_late or late
            del self._missing[uid], self._lost_seconds[uid]

    def looked(self, asked_seconds: float) -> None:
        """The arbiter was read, and named this coordinator when it was asked."""
        self._looked_seconds, self._ended_late = asked_seconds, False
        self._owed_looks = max(0, self._owed_looks - 1)
        self._looks += 1

    def aged(self, seconds: float) -> None:
        """The clock by which looks are dated stood still, and others went on."""
        if self._looked_seconds is not None:
            self._looked_seconds -= seconds

    def paused(self) -> None:
        """This coordinator stood still: what it saw before is old, and what it hears now may be.

        Messages that launchers sent before they turned to somebody else are read only now, and
        the first look may have begun before.
        """
        self._looked_seconds = None
        self._owed_looks = 2 if self._looks else 0

    def may_end(self) -> bool:
        """Tell whether the final flush, which everybody has confirmed, may be committed.

        An answer may be to a question from before; the one after it is not. Who was missing and
        was found again may follow somebody else: what was heard of it may be old.
        """
        returned = self._returned_at is not None and self._looks < self._returned_at + 2
        if self._any_side or not (self._missing or self._ended_late or returned):
            return True
        if self._looks_at_end is None:
            self._looks_at_end = self._looks
        return self._looks >= self._looks_at_end + 2

    def holds(self, now: float) -> bool:
        """Tell whether rounds have to wait."""
        if self._any_side:
            return False
        if self._owed_looks:
            return True
        if not (self._missing or self._ended_late):
            return False
        return self._looked_seconds is None or now - self._looked_seconds > READ_SECONDS
