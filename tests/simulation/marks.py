"""Who was hit lately: while a fault lasts, and for as long after it as its consequences may show.

After that it forgives nothing: the same invariants bind whoever it has hit as bind the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable

from dssync.control.events import ControlSettings
from simulation.network import HEAL_SECONDS

DEADLINE_SECONDS = 3.0
"""So long mates wait for a member in the first rounds; later not longer, but for slow ones."""
AFTER_SECONDS = ControlSettings.lease_seconds + DEADLINE_SECONDS + HEAL_SECONDS
"""After a fault. What it held up arrives late, is missed for a lease, and then for a deadline."""


class Marks:
    """Launchers and members that a fault has hit; with a launcher, its members."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.homes: dict[str, str] = {}
        """The uid of each member's launcher."""
        self._clock = clock
        self._lasting: Counter[str] = Counter()
        self._general = 0
        """Faults that last and hit everybody."""
        self._until: dict[str, float] = {}

    def __contains__(self, name: str) -> bool:
        return self._ends(name) >= self._clock()

    def hit(self, names: Iterable[str]) -> None:
        """Mark for a fault that is over as soon as it strikes."""
        until = self._clock() + AFTER_SECONDS
        for name in names:
            self._until[name] = max(until, self._until.get(name, until))

    def lose(self, names: Iterable[str]) -> None:
        """Mark for ever: they end, at once or soon."""
        self._until.update(dict.fromkeys(names, math.inf))

    def hold(self, names: Iterable[str]) -> Callable[[], None]:
        """Mark for a fault that lasts; what is returned ends it."""
        held = tuple(names)
        self._lasting.update(held)

        def end() -> None:
            self._lasting.subtract(held)
            self.hit(held)

        return end

    def hold_general(self) -> Callable[[], None]:
        """Mark whoever comes, for as long as a fault lasts: until what is returned is called."""
        self._general += 1

        def end() -> None:
            self._general -= 1

        return end

    def is_hit_since(self, name: str, seconds: float) -> bool:
        """Tell whether a fault has hit somebody at or after a moment."""
        return self._ends(name) >= seconds + AFTER_SECONDS

    def _ends(self, name: str) -> float:
        """Return when the mark of a launcher or a member ends."""
        both = name, self.homes.get(name, "")
        lasts = self._general > 0 or any(self._lasting[each] > 0 for each in both)
        return math.inf if lasts else max(self._until.get(each, -math.inf) for each in both)
