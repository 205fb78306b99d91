import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from dssync.errors import ScheduleError
from dssync.schedule import MODES, Place, Settings, plan, validate
from unit.schedule.averaging import (
    flat,
    flush_error,
    layouts,
    mixing_matrix,
    period_product,
    racks,
    second_modulus,
)


def test_group_size_one_is_refused_with_a_sentence():
    with pytest.raises(ScheduleError, match=r"group size 1 is too small.*choose 2 or more"):
        Settings(group_size=1)


def test_an_unknown_mode_is_refused_and_the_existing_ones_are_named():
    with pytest.raises(ScheduleError, match=r"'ring' does not exist.*grid, pool, cross, stream"):
        Settings(mode="ring")


def test_no_fragments_are_refused():
    with pytest.raises(ScheduleError, match="0 fragments cannot hold the parameters"):
        Settings(mode="stream", fragments=0)


@settings(deadline=None, max_examples=100)
@given(places=layouts(), group_size=st.integers(2, 8), mode=st.sampled_from(MODES))
def test_every_mode_is_valid_on_every_layout_and_flushes_exactly(places, group_size, mode):
    made = plan(places, Settings(mode, group_size=group_size))

    validate(made)
    assert flush_error(made.flush, len(places)) < 1e-12


@given(places=layouts(largest_rack=3), mode=st.sampled_from(MODES), first=st.integers(0, 99))
def test_rounds_repeat_after_a_period(places, mode, first):
    made = plan(places, Settings(mode, group_size=3, fragments=3))

    later = first + made.period
    assert made.groups(first) == made.groups(later)
    assert made.columns(first) == made.columns(later)
    assert made.fragment(first) == made.fragment(later) or not made.columns(first)


def test_the_same_question_has_one_answer():
    places, chosen = racks(3, 4), Settings("pool", seed=5)

    assert plan(places, chosen) is plan(tuple(places), Settings("pool", seed=5))


class TestPool:
    @pytest.mark.parametrize("n", [9, 30, 100])
    def test_groups_are_as_full_as_possible(self, n):
        made = plan(flat(n), Settings("pool", group_size=8))

        parts = -(-n // 8)
        assert made.period == 4
        for groups in made.rounds:
            assert len(groups) == parts
            assert {len(group) for group in groups} <= {n // parts, -(-n // parts)}

    def test_the_seed_decides_the_partitions(self):
        rounds = [plan(flat(30), Settings("pool", seed=seed)).rounds for seed in (1, 2)]

        assert rounds[0] != rounds[1]
        assert len(set(rounds[0])) == 4

    @pytest.mark.parametrize("seed", range(60))
    def test_few_members_are_never_drawn_into_parts_that_do_not_meet(self, seed):
        made = plan(flat(4), Settings("pool", group_size=2, seed=seed))

        assert second_modulus(period_product(made)) < 1 - 1e-9

    def test_members_of_one_group_average_with_all(self):
        assert plan(flat(4), Settings("pool", group_size=4)).rounds == (((0, 1, 2, 3),),)


class TestCross:
    def test_one_member_of_each_rack_crosses_and_the_role_rotates(self):
        places = racks(8, 8, 8, 8)

        made = plan(places, Settings("cross", group_size=8))

        crossing = []
        for groups in made.rounds:
            mixed = [g for g in groups if len({places[m].rack for m in g}) > 1]
            assert len(mixed) == 1
            assert sorted(places[m].rack for m in mixed[0]) == ["r000", "r001", "r002", "r003"]
            crossing += mixed[0]
        assert made.mode == "cross"
        assert made.period == 8
        assert sorted(crossing) == list(range(32))

    def test_mixes_as_fast_as_computed_beforehand(self):
        made = plan(racks(8, 8, 8, 8), Settings("cross", group_size=8))

        assert second_modulus(period_product(made)) ** (1 / made.period) < 0.86

    @settings(deadline=None, max_examples=100)
    @given(
        sizes=st.lists(st.integers(4, 12), min_size=2, max_size=11), group_size=st.integers(2, 8)
    )
    def test_every_rack_crosses_in_each_period_whatever_the_sizes(self, sizes, group_size):
        places = racks(*sizes)

        made = plan(places, Settings("cross", group_size=group_size))

        crossing = {g for r in made.rounds for g in r if len({places[m].rack for m in g}) > 1}
        assert made.mode == "cross"
        assert made.period == max(sizes)
        assert {places[m].rack for g in crossing for m in g} == {place.rack for place in places}

    @pytest.mark.parametrize("sizes", [(9,), (8, 3), (2, 2, 2)])
    def test_falls_back_to_the_grid_without_two_racks_of_four_and_says_so(self, sizes):
        asked = plan(racks(*sizes), Settings("cross"))

        assert asked.mode == "grid"
        assert asked == plan(racks(*sizes), Settings("grid"))


class TestStream:
    def test_rows_average_in_every_round_and_one_fragment_on_columns(self):
        made = plan(racks(4, 4, 4), Settings("stream", fragments=3))

        assert made.period == 3
        assert [made.fragment(r) for r in range(4)] == [0, 1, 2, 0]
        for r in range(4):
            assert made.groups(r) == ((0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11))
            assert made.columns(r) == ((0, 4, 8), (1, 5, 9), (2, 6, 10), (3, 7, 11))

    def test_a_fragment_is_exact_after_its_columns(self):
        made = plan(racks(4, 4, 4), Settings("stream"))

        rows, columns = (mixing_matrix(part, 12) for part in (made.groups(0), made.columns(0)))
        assert np.allclose(columns @ rows, 1 / 12)

    def test_each_fragment_passes_through_every_level_above_the_rows(self):
        places = tuple(Place(f"z{m // 8}", f"r{m // 4}") for m in range(16))

        made = plan(places, Settings("stream", fragments=2))

        seen = {f: {made.columns(r) for r in range(made.period) if made.fragment(r) == f}
                for f in range(2)}  # fmt: skip
        assert made.period == 4
        assert len(seen[0]) == 2
        assert seen[0] == seen[1]

    def test_a_row_is_not_averaged_again_as_a_column(self):
        made = plan(racks(16, 4), Settings("stream", group_size=8))

        columns = {group for r in range(made.period) for group in made.columns(r)}
        assert columns.isdisjoint(group for group in made.groups(0))

    def test_other_modes_have_no_columns(self):
        assert plan(racks(4, 4), Settings("grid")).columns(0) == ()


class TestAllreduce:
    def test_everybody_averages_in_every_round(self):
        made = plan(racks(8, 8), Settings("allreduce", group_size=4))

        assert made.groups(3) == (tuple(range(16)),)
        assert made.period == 1
        assert len(made.flush) == 1
