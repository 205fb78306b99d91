"""The part that a member plays in a replay, act by act (`replay.ReplaySession`)."""

from collections import deque
from itertools import chain, islice
from pathlib import Path

from dssync.control.replay import ACTS, Act, Donates, Ending, Round
from dssync.control.viewlog import Draw, Skipped
from dssync.errors import ReplayError


class Acts:
    """What is left to play, and the batches that are drawn before the next act."""

    def __init__(self, path: Path) -> None:
        *acts, ending = [ACTS.decode(line) for line in path.read_text().splitlines()]
        if not isinstance(ending, Ending):
            raise ReplayError(f"{path} has no end: the launcher has not written all of it")
        self.stays = ending.stays
        self._acts: deque[Act] = deque(acts)
        self._draws: deque[Draw] = deque()
        self._turn()

    @property
    def next(self) -> Act | None:
        """The next act; None at the end."""
        return self._acts[0] if self._acts else None

    @property
    def due(self) -> Act | None:
        """The next act, if nothing is drawn before it."""
        return None if self._draws else self.next

    @property
    def idles(self) -> bool:
        """Whether nothing is drawn before the next round, though copies may be given away."""
        draws = chain([self._draws], (act.drawn for act in islice(self._acts, 1, None)))
        for act, drawn in zip(self._acts, draws, strict=False):
            if drawn or not isinstance(act, Donates):
                return not drawn and is_idle(act)
        return False

    def draw(self) -> Draw | None:
        """Return what is drawn next; None if the next act comes first."""
        return self._draws.popleft() if self._draws else None

    def done(self) -> None:
        """Go on to the next act."""
        self._acts.popleft()
        self._turn()

    def _turn(self) -> None:
        self._draws = deque(self._acts[0].drawn) if self._acts else deque()


def is_idle(act: Act | None) -> bool:
    """Whether it is a round before which nothing was trained."""
    return isinstance(act, Round | Skipped) and act.idle
