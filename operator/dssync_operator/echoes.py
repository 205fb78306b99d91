"""Events that only repeat what this process did itself and has taken into account.

The look that makes a pod already counts it, so the event of its creation tells nothing new: a
job of a hundred pods needs one look and one LIST instead of two or three. Every later event of
the pod is news. An echo that never comes costs nothing, and one that is not recognised costs a
look, never the truth.
"""


class Echoes:
    """Names of pods whose creation will be told by the watch."""

    def __init__(self) -> None:
        self._expected: set[tuple[str, str]] = set()

    def expect(self, namespace: str, name: str) -> None:
        """A pod is about to be made; call this before the request."""
        self._expected.add((namespace, name))

    def withdraw(self, namespace: str, name: str) -> None:
        """It was not made, or nobody knows: what the watch tells of it is news."""
        self._expected.discard((namespace, name))

    def hears(self, event: str, namespace: str, name: str) -> bool:
        """Tell whether an event is an echo; each is taken for one only once."""
        if event != "ADDED" or (namespace, name) not in self._expected:
            return False
        self._expected.remove((namespace, name))
        return True

    def forget(self) -> None:
        """Expect nothing any more: the watch has a gap, and every job is looked at."""
        self._expected.clear()
