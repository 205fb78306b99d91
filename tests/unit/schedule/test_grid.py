from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dssync.errors import ScheduleError
from dssync.schedule import Place, Settings, plan
from unit.schedule.averaging import (
    flat,
    flush_error,
    layouts,
    mixing_matrix,
    period_product,
    racks,
    second_modulus,
)

CAPS = (2, 3, 4, 5, 8)


def fewest_rounds(n, group_size):
    """The least number of rounds that any scheme with groups of this size needs."""
    rounds = 0
    while group_size**rounds < n:
        rounds += 1
    return rounds


def is_partition(groups, n):
    return sorted(member for group in groups for member in group) == list(range(n))


@pytest.mark.parametrize("group_size", CAPS)
def test_every_number_of_members_is_partitioned_and_flushed_exactly(group_size):
    cap = max(group_size, 3)
    for n in range(1, 301):
        made = plan(flat(n), Settings(group_size=group_size))
        flushed = [[group.members for group in weighted] for weighted in made.flush]
        partitions = [*made.rounds, *flushed]

        assert all(is_partition(groups, n) for groups in partitions), n
        assert max(len(group) for groups in partitions for group in groups) <= cap, n
        assert all(group == tuple(sorted(group)) for groups in partitions for group in groups), n
        assert len(made.flush) <= 2 * made.period - 1, n
        assert flush_error(made.flush, n) < 1e-12, n


@settings(deadline=None, max_examples=150)
@given(places=layouts(), group_size=st.integers(2, 8))
def test_every_layout_of_racks_is_partitioned_and_flushed_exactly(places, group_size):
    n = len(places)

    made = plan(places, Settings(group_size=group_size))

    flushed = [[group.members for group in weighted] for weighted in made.flush]
    partitions = [*made.rounds, *flushed]
    assert all(is_partition(groups, n) for groups in partitions)
    assert max(len(group) for groups in partitions for group in groups) <= max(group_size, 3)
    assert len(made.flush) <= 2 * made.period - 1
    assert flush_error(made.flush, n) < 1e-12


@settings(deadline=None, max_examples=60)
@given(places=layouts(largest_rack=9), group_size=st.integers(2, 8))
def test_training_rounds_are_doubly_stochastic_and_mix(places, group_size):
    n = len(places)

    made = plan(places, Settings(group_size=group_size))

    for round_number in range(made.period):
        matrix = mixing_matrix(made.groups(round_number), n)
        assert np.allclose(matrix.sum(axis=0), 1)
        assert np.allclose(matrix.sum(axis=1), 1)
    assert second_modulus(period_product(made)) < 1 - 1e-6


def test_one_member_needs_no_flush():
    made = plan(flat(1), Settings())

    assert made.groups(7) == ((0,),)
    assert made.flush == ()


def test_no_members_are_refused_with_a_sentence():
    with pytest.raises(ScheduleError, match="at least one member, but the view is empty"):
        plan((), Settings())


def test_four_workers_in_pairs_alternate_as_in_the_first_publication():
    made = plan(flat(4), Settings(group_size=2))

    pairs = [set(groups) for groups in made.rounds]
    assert made.period == 2
    assert all(is_partition(groups, 4) for groups in pairs)
    assert all(len(pair) == 2 for groups in pairs for pair in groups)
    assert pairs[0].isdisjoint(pairs[1])
    assert np.allclose(period_product(made), 1 / 4)


@pytest.mark.parametrize("n", [4, 8, 16, 64])
def test_no_two_meet_in_two_consecutive_rounds(n):
    made = plan(flat(n), Settings(group_size=2))

    meetings = [
        {pair for group in made.groups(r) for pair in combinations(group, 2)}
        for r in range(made.period + 1)
    ]
    assert all(now.isdisjoint(after) for now, after in pairwise(meetings))


@pytest.mark.parametrize(
    ("n", "group_size", "rounds"),
    [(8, 2, 3), (8, 4, 2), (16, 4, 2), (16, 8, 2), (24, 4, 3), (24, 8, 2), (30, 8, 2), (64, 2, 6),
     (64, 4, 3), (64, 8, 2), (100, 8, 3), (256, 4, 4), (256, 8, 3)],
)  # fmt: skip
def test_equal_weights_are_exact_after_a_period_where_the_sizes_factorise(n, group_size, rounds):
    made = plan(flat(n), Settings(group_size=group_size))

    assert made.period == rounds
    assert np.abs(period_product(made) - 1 / n).max() < 1e-14


@pytest.mark.parametrize(
    ("n", "group_size", "communicators", "flush_rounds"),
    [(30, 2, 71, 5), (31, 2, 75, 5), (100, 2, 316, 7), (1000, 2, 4932, 10), (16, 8, 8, 2),
     (24, 4, 26, 3), (24, 8, 10, 2), (30, 4, 28, 3), (30, 8, 11, 2), (31, 4, 28, 3),
     (31, 8, 11, 2), (100, 8, 65, 3), (256, 2, 1024, 8), (256, 8, 128, 3), (1000, 8, 725, 4)],
)  # fmt: skip
def test_communicators_are_few_and_flushes_short(n, group_size, communicators, flush_rounds):
    made = plan(flat(n), Settings(group_size=group_size))

    distinct = {group for groups in made.rounds for group in groups if len(group) > 1}
    assert len(distinct) == communicators
    assert len(made.flush) == flush_rounds


def test_the_flush_takes_the_fewest_possible_rounds_for_nearly_every_size():
    longer = [
        n
        for n in range(1, 301)
        if len(plan(flat(n), Settings(group_size=8)).flush) > fewest_rounds(n, 8)
    ]

    assert longer == [57, 58, 59, 60, 61, 62, 63]


@pytest.mark.parametrize(
    ("sizes", "group_size", "levels", "flush_rounds", "largest", "residual"),
    [
        ((8, 8, 8, 7), 8, 2, 2, 8, 1.8e-3),
        ((5, 9, 2), 8, 3, 3, 8, 1.3e-3),
        ((16, 4), 8, 3, 3, 5, 0),
        ((3, 3, 3, 1), 4, 2, 3, 4, 1.9e-2),
        ((8,) * 8 + (5,), 8, 3, 3, 8, 8.9e-4),
        ((12, 7, 7, 3, 1), 4, 4, 7, 4, 5.7e-3),
        ((64, 13), 8, 3, 3, 8, 6.2e-5),
        ((37, 41, 29), 8, 3, 3, 7, 1.1e-3),
        ((1,) * 7, 4, 2, 2, 4, 4.6e-3),
    ],
)
def test_uneven_racks(sizes, group_size, levels, flush_rounds, largest, residual):
    n = sum(sizes)

    made = plan(racks(*sizes), Settings(group_size=group_size))

    assert made.period == levels
    assert len(made.flush) == flush_rounds
    assert max(len(group) for groups in made.rounds for group in groups) == largest
    left = ((period_product(made) - 1 / n) ** 2).sum() / (n - 1)
    assert left == pytest.approx(residual, rel=0.05, abs=1e-20)


def test_rows_stay_in_their_rack_and_columns_cross():
    places = racks(4, 4, 4)

    made = plan(places, Settings(group_size=4))

    def racks_met(round_number):
        return [{places[member].rack for member in group} for group in made.groups(round_number)]

    assert all(len(met) == 1 for met in racks_met(0))
    assert all(len(met) == 3 for met in racks_met(1))


def test_members_of_a_rack_are_found_wherever_they_stand_in_the_view():
    places = tuple(Place("z", "ab"[position % 2]) for position in range(8))

    made = plan(places, Settings(group_size=4))

    assert made.groups(0) == ((0, 2, 4, 6), (1, 3, 5, 7))


def test_a_small_rack_averages_while_larger_ones_take_a_level_more():
    made = plan(racks(16, 4), Settings(group_size=8))

    assert (16, 17, 18, 19) in made.groups(0)
    assert (16, 17, 18, 19) in made.groups(1)
