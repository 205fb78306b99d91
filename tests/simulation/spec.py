"""What a pod of a run is."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Spec:
    """What a pod is."""

    slot: int
    uid: str
    workers: int
    place: tuple[str, str, str]
    rate: float = 1.0
    """Seconds of its clock in a second."""
    import_seconds: float = 0.0
    """What its workers need before they can say hello."""
