"""What a schedule does to numbers, by plain numpy: the reference that tests compare with."""

import numpy as np
from hypothesis import strategies as st

from dssync.schedule import Place, Plan, WeightedGroup


def racks(*sizes: int, zone: str = "z") -> tuple[Place, ...]:
    """Places of racks with the given numbers of members, rack by rack."""
    return tuple(
        Place(zone, f"r{number:03}", f"n{number:03}-{index:03}")
        for number, size in enumerate(sizes)
        for index in range(size)
    )


def flat(n: int) -> tuple[Place, ...]:
    return (Place(),) * n


def mixing_matrix(partition, n: int) -> np.ndarray:
    """Matrix of one training round: row i says what member i ends with."""
    matrix = np.zeros((n, n))
    for group in partition:
        matrix[np.ix_(group, group)] = 1 / len(group)
    return matrix


def period_product(plan: Plan) -> np.ndarray:
    product = np.eye(plan.size)
    for round_number in range(plan.period):
        product = mixing_matrix(plan.groups(round_number), plan.size) @ product
    return product


def second_modulus(product: np.ndarray) -> float:
    """Largest modulus of an eigenvalue besides that of the vector (1, ..., 1)."""
    n = len(product)
    return float(np.abs(np.linalg.eigvals(product - 1 / n)).max())


def flush_error(rounds: tuple[tuple[WeightedGroup, ...], ...], n: int, receivers=frozenset()):
    """Largest entry by which weighted rounds miss the mean of all but the receivers."""
    values = np.eye(n)
    for weighted in rounds:
        after = np.full((n, n), np.nan)
        for group in weighted:
            after[list(group.members)] = np.array(group.weights) @ values[list(group.members)]
        values = after
    mean = np.full(n, 1 / (n - len(receivers)))
    mean[list(receivers)] = 0
    return float(np.abs(values - mean).max())


@st.composite
def layouts(draw, largest_rack: int = 19) -> tuple[Place, ...]:
    """1 to 11 racks of 1 to 19 members in 1 to 3 zones, members in any order."""
    sizes = draw(st.lists(st.integers(1, largest_rack), min_size=1, max_size=11))
    zones = [draw(st.sampled_from("abc")) for _ in sizes]
    places = [
        Place(zone, f"r{number}")
        for number, (zone, size) in enumerate(zip(zones, sizes, strict=True))
        for _ in range(size)
    ]
    draw(st.randoms(use_true_random=False)).shuffle(places)
    return tuple(places)
