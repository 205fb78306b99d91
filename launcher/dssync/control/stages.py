"""What each member of a group does in one attempt, as stages of weighted sums. Pure."""

from collections.abc import Callable, Mapping, Sequence

from dssync.control.messages import Stage
from dssync.schedule import Place, Settings, flush

CommunicatorId = Callable[[tuple[str, ...]], str]


def train_stages(
    members: tuple[str, ...], unweighted: frozenset[str], communicator_id: CommunicatorId
) -> dict[str, tuple[Stage, ...]]:
    """Return one equal-weight stage for each member.

    Nobody has a stage, and so everybody keeps its values, where the group is one member or
    holds none whose values count.
    """
    weighted = [m for m in members if m not in unweighted]
    if len(members) < 2 or not weighted:
        return dict.fromkeys(members, ())
    name = communicator_id(members)
    share = 1.0 / len(weighted)
    counts, receives = (Stage(name, members, share),), (Stage(name, members, 0.0),)
    return {m: receives if m in unweighted else counts for m in members}


def flush_stages(
    places: Mapping[str, Place],
    unweighted: frozenset[str],
    settings: Settings,
    communicator_id: CommunicatorId,
) -> dict[str, tuple[Stage, ...]]:
    """Return the stages after which every member holds the exact mean of the weighted ones.

    Args:
        places: the members in rank order, with where they run.
        unweighted: members that only receive; if nobody has weight, everybody counts.
        settings: of the schedule, for the cap on the group size.
        communicator_id: gives the communicator of a member list.
    """
    members = tuple(places)
    receivers = frozenset(i for i, m in enumerate(members) if m in unweighted)
    if len(receivers) == len(members):
        receivers = frozenset()
    stages: dict[str, list[Stage]] = {m: [] for m in members}
    for groups in flush(tuple(places.values()), settings, receivers):
        for group in groups:
            keys = tuple(members[i] for i in group.members)
            _add_stage(stages, keys, group.weights, communicator_id)
    return {m: tuple(each) for m, each in stages.items()}


def _add_stage(
    stages: dict[str, list[Stage]],
    keys: tuple[str, ...],
    weights: Sequence[float],
    communicator_id: CommunicatorId,
) -> None:
    if len(keys) == 1 and weights[0] == 1.0:
        return
    name = communicator_id(keys)
    for key, weight in zip(keys, weights, strict=True):
        stages[key].append(Stage(name, keys, weight))
