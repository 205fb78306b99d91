"""How often the coordinator tells all launchers the same. Pure."""

EVERY_SECONDS = 0.25
"""Time between two copies; launchers keep commit records for that long."""
EVERY_PODS = 32
"""With more pods than this the copies become rarer, so that they cost the same."""


class Pace:
    """Says when the next copy is due."""

    def __init__(self) -> None:
        self._next_seconds = 0.0

    def is_due(self, now: float, pods: int) -> bool:
        """Tell whether a copy to so many pods may go out; if so, the next one has to wait."""
        if now < self._next_seconds:
            return False
        self._next_seconds = now + EVERY_SECONDS * max(1.0, pods / EVERY_PODS)
        return True
