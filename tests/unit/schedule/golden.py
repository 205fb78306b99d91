"""Golden vectors of the schedule. Run this file to write ``golden.json`` anew.

A change of a vector breaks jobs whose members run different releases, so it needs a reason.
"""

import hashlib
import json
from pathlib import Path

from dssync.schedule import Place, Plan, Settings, plan
from dssync.schedule.permutation import permutation

PATH = Path(__file__).with_name("golden.json")
CAPS = (2, 3, 4, 5, 8)
LARGEST_FLAT = 300
RACKS = ((5, 9, 2), (3, 3, 3, 1), (4, 4, 4), (6, 4, 5))
MODES = ("grid", "pool", "cross", "stream", "allreduce")


def text_of(plan: Plan) -> str:
    """Everything that a plan says, as text that does not depend on the Python version."""
    rounds = [[plan.groups(r), plan.columns(r), plan.fragment(r)] for r in range(plan.period)]
    flush = [
        [[group.members, [weight.hex() for weight in group.weights]] for group in weighted]
        for weighted in plan.flush
    ]
    return json.dumps([rounds, flush], separators=(",", ":"))


def flat_digest(n: int, group_size: int) -> str:
    text = text_of(plan((Place(),) * n, Settings(group_size=group_size)))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def permutations() -> dict[str, object]:
    return {
        "10 by 0": permutation(10, 0),
        "10 by 7, pool, 1": permutation(10, 7, "pool", 1),
        "16 by 'seed', 3": permutation(16, "seed", 3),
    }


def racks() -> dict[str, object]:
    return {f"{sizes} {mode}": _case(sizes, mode) for sizes in RACKS for mode in MODES}


def flat() -> dict[str, object]:
    return {str(cap): [flat_digest(n, cap) for n in range(1, LARGEST_FLAT + 1)] for cap in CAPS}


PARTS = {"permutations": permutations, "racks": racks, "flat": flat}


def _case(sizes: tuple[int, ...], mode: str) -> object:
    places = tuple(Place("z", f"r{rack}") for rack, size in enumerate(sizes) for _ in range(size))
    return json.loads(text_of(plan(places, Settings(mode, group_size=4, seed=1, fragments=2))))


def _written(value: object, indent: str = "") -> str:
    """JSON with one line per vector, so that differences can be read."""
    if not isinstance(value, dict):
        return json.dumps(value, separators=(",", ":"))
    inner = indent + " "
    lines = [f"{inner}{json.dumps(key)}: {_written(part, inner)}" for key, part in value.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"


if __name__ == "__main__":
    PATH.write_text(_written({name: compute() for name, compute in PARTS.items()}) + "\n")
