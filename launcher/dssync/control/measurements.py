"""What workers measure, on its way to their launcher's registry."""

from dssync.control.codec import Codec, Message, Record


class Observed(Record, frozen=True):
    """Values for one histogram."""

    name: str
    labels: dict[str, str]
    values: tuple[float, ...]


class Amount(Record, frozen=True):
    """What a counter rises by, or what a gauge shows."""

    name: str
    labels: dict[str, str]
    value: float


class Delta(Message, frozen=True):
    """What one worker measured since it last said so."""

    observed: tuple[Observed, ...] = ()
    raised: tuple[Amount, ...] = ()
    """Counters."""
    shown: tuple[Amount, ...] = ()
    """Gauges."""


DELTA = Codec([Delta])
