"""When a coordinator may decide: the quorum rule, and the launchers that the rule counts.

A launcher that is lost without a confirmed exit may be on the other side of a partition, where
somebody else may have become coordinator meanwhile. While there is such a launcher, rounds are
frozen and committed only on a recent look at the arbiter.
"""

from collections.abc import Iterable

from dssync.control.takeover import Launcher

READ_SECONDS = 5.0
"""A look at the arbiter is worth this long."""


class Quorum:
    """The launchers that are missing, and what the arbiter said last."""

    def __init__(self, *, any_side: bool = False) -> None:
        """Start with nobody missing.

        Args:
            any_side: go on without the arbiter, on either side of a partition.
        """
        self._any_side = any_side
        self._missing: dict[str, Launcher] = {}
        self._looked_seconds: float | None = None

    @property
    def missing(self) -> tuple[Launcher, ...]:
        """Launchers that were lost and whose exits nothing has confirmed."""
        return tuple(self._missing.values())

    def lost(self, launcher: Launcher) -> None:
        """A launcher went without a word."""
        self._missing[launcher.uid] = launcher

    def found(self, uids: Iterable[str]) -> None:
        """Launchers are back, or have ended for certain."""
        for uid in uids:
            self._missing.pop(uid, None)

    def looked(self, now: float) -> None:
        """The arbiter was read, and it names this coordinator."""
        self._looked_seconds = now

    def holds(self, now: float) -> bool:
        """Tell whether rounds have to wait."""
        if self._any_side or not self._missing:
            return False
        return self._looked_seconds is None or now - self._looked_seconds > READ_SECONDS
