"""What a member does while nobody leads: it repeats its groups of the last period. Sans IO.

A coordinator that is lost while the arbiter is out of reach has no successor for as long as that
lasts. Members with the relaxed commit go on meanwhile, without any message: the groups of a
schedule repeat after one period, so every member of a group knows the communicator that round
``r`` would use from round ``r - period``. It is never used with other members, and each member
uses it in the order of rounds; whoever cannot take part gives it up, which ends the operation of
its mates. So an operation never mixes two rounds, and a group that has lost somebody keeps its
values from then on.
"""

from msgspec.structs import replace

from dssync.control.messages import Assign

PERIODS_KEPT = 3
"""A flush takes the place of a round; the groups of the period before it are still known."""
CAUSE = "provisional"


class Provisional:
    """The rounds that a member has applied lately, and those that follow from them."""

    def __init__(self) -> None:
        self._past: dict[int, Assign] = {}

    def applied(self, assign: Assign) -> None:
        """Take note of a round that was applied."""
        self._past[assign.round] = assign
        oldest = assign.round - PERIODS_KEPT * assign.period
        self._past = {r: each for r, each in self._past.items() if r > oldest}

    def assignment(self, number: int) -> Assign | None:
        """Return what to do in a round that nobody has frozen; None if it has to wait.

        Where the group of that round is not known, or has lost somebody, the values are kept. A
        strict commit is the coordinator's to decide.
        """
        if not self._past or any(x.strict and x.kind == "train" for x in self._past.values()):
            return None
        latest = self._past[max(self._past)]
        repeated = self._repeated(number, latest)
        return replace(
            latest,
            round=number,
            attempt=0,
            kind="train",
            strict=False,
            stages=() if repeated is None else repeated.stages,
            retire=(),
            cause=CAUSE,
            moments="" if repeated is None else repeated.moments,
        )

    def _repeated(self, number: int, latest: Assign) -> Assign | None:
        for before in range(
            number - latest.period, number - PERIODS_KEPT * latest.period - 1, -latest.period
        ):
            known = self._past.get(before)
            if known is None or known.view != latest.view:
                return None
            if known.kind == "train":
                return known
        return None


def alone(assign: Assign) -> Assign:
    """Return the next attempt of a round whose group cannot be completed: keep the values."""
    return replace(assign, attempt=assign.attempt + 1, stages=(), cause=CAUSE)
