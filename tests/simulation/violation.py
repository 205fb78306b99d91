"""What the simulator raises when an invariant does not hold."""


class ViolationError(AssertionError):
    """An invariant does not hold."""


class CrashError(ViolationError):
    """A state machine or the model ends with an error that nobody raises on purpose."""


def require(holds: bool, sentence: str) -> None:
    """Raise unless an invariant holds; in hot places, test before you build the sentence."""
    if not holds:
        raise ViolationError(sentence)
