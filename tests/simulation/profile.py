"""Which kinds of faults a run draws, and how often."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """Weights of the kinds of faults; the commit is drawn unless it is given."""

    name: str
    members: int = 0
    """Workers and pods: killed, frozen, cut off, slow, draining, joining."""
    leaders: int = 0
    """The same for the launcher that coordinates; crashes between two effects."""
    network: int = 0
    """Partitions one way and both, links that flap, a slow network."""
    arbiter: int = 0
    """Slow, silent, or silent though a swap takes effect."""
    echoes: int = 0
    """What one coordinator did reaches the next one late or not at all."""
    tangles: int = 0
    """Who reaches whom is not transitive."""
    asks: bool = False
    """Members of each run ask for what no training needs, not only of each tenth; see ``asks``."""
    commit: str = ""
    epochs: int = 2
    pace: float = 1.0
    """How much longer a step takes than else."""
    floor_seconds: float = 1.0
    """The least deadline: who has fallen behind as far as the schedule lets it has to make it."""


MIXED = Profile("mixed", members=9, leaders=4, network=2, arbiter=1)
MEMBERS = Profile("members", members=1)
STRICT = Profile("strict", members=1, commit="strict")
LEADERS = Profile("leaders", members=1, leaders=2)
STRICT_LEADERS = Profile("strict leaders", members=1, leaders=2, commit="strict")
PARTITIONS = Profile("partitions", members=1, leaders=1, network=4, arbiter=1)
OUTAGES = Profile("outages", members=1, leaders=3, network=1, arbiter=3)
ECHOES = Profile("echoes", members=1, leaders=1, echoes=4, commit="strict")
TANGLES = Profile("tangles", members=1, leaders=1, tangles=4, arbiter=1)
ASKS = Profile("asks", members=2, leaders=1, asks=True)
LONG = Profile(
    "long", members=3, leaders=2, network=2, arbiter=1, epochs=8, pace=4.0, floor_seconds=3.0
)
"""Goes on for long after its faults are over, when they forgive nothing any more."""
PROFILES = {
    each.name: each
    for each in (
        MIXED,
        MEMBERS,
        STRICT,
        LEADERS,
        STRICT_LEADERS,
        PARTITIONS,
        OUTAGES,
        ECHOES,
        TANGLES,
        ASKS,
        LONG,
    )
}
