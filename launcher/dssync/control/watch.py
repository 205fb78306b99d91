"""The exchanges whose time runs: a tick looks at no others, and mostly at none.

A job of a thousand members has hundreds of open exchanges and fifty ticks a second. Nothing
follows from a tick before the first deadline is over, unless a member of one round holds others
up in a higher one.
"""

import math

from dssync.control.exchange import Exchange


class Watch:
    """Exchanges in which somebody has arrived or that have a deadline, by round."""

    def __init__(self) -> None:
        self._rounds: dict[int, dict[Exchange, None]] = {}
        self._soonest_seconds = math.inf
        """No deadline is earlier; all may be later, for they are moved and taken away."""

    def add(self, exchange: Exchange) -> None:
        """Look at an exchange from now on; to be called whenever its deadline is set."""
        self._rounds.setdefault(exchange.round, {})[exchange] = None
        if exchange.deadline_seconds is not None:
            self._soonest_seconds = min(self._soonest_seconds, exchange.deadline_seconds)

    def remove(self, exchange: Exchange) -> None:
        """Look no more at an exchange that is closed."""
        watched = self._rounds.get(exchange.round, {})
        if watched.pop(exchange, exchange) is None and not watched:
            del self._rounds[exchange.round]

    def is_due(self, now: float) -> bool:
        """Tell whether a deadline may be over."""
        return now >= self._soonest_seconds

    def refresh(self) -> None:
        """Find the earliest deadline again."""
        deadlines = (each.deadline_seconds for each in self.exchanges())
        self._soonest_seconds = min((d for d in deadlines if d is not None), default=math.inf)

    @property
    def spans_rounds(self) -> bool:
        """Whether time runs in more than one round, so that one may hold another up."""
        return len(self._rounds) > 1

    def exchanges(self) -> list[Exchange]:
        """Return what is looked at, lowest round first."""
        return [each for number in sorted(self._rounds) for each in self._rounds[number]]
