import pytest
from hypothesis import given, settings, strategies as st

from dssync.errors import ScheduleError
from dssync.schedule import MODES, Place, Settings, flush, plan
from unit.schedule.averaging import flat, flush_error, layouts, racks


@settings(deadline=None, max_examples=150)
@given(
    places=layouts(largest_rack=8),
    group_size=st.integers(2, 8),
    mode=st.sampled_from(MODES),
    data=st.data(),
)
def test_everybody_ends_with_the_mean_of_all_but_the_receivers(places, group_size, mode, data):
    n = len(places)
    receivers = frozenset(data.draw(st.sets(st.integers(0, n - 1), max_size=n - 1)))

    rounds = flush(places, Settings(mode, group_size=group_size), receivers)

    largest = n if mode == "allreduce" else max(group_size, 3)
    for weighted in rounds:
        assert sorted(m for group in weighted for m in group.members) == list(range(n))
        assert all(sum(group.weights) == pytest.approx(1) for group in weighted)
        assert max(len(group.members) for group in weighted) <= largest
    assert flush_error(rounds, n, receivers) < 1e-12


def test_without_receivers_it_is_the_flush_of_the_plan():
    assert flush(racks(3, 5), Settings()) == plan(racks(3, 5), Settings()).flush


def test_receivers_never_give_anything_before_they_hold_the_mean():
    rounds = flush(flat(9), Settings(), frozenset({0, 4}))

    for weighted in rounds[:-1]:
        assert {group.members for group in weighted} >= {(0,), (4,)}
    given = {m: w for g in rounds[-1] for m, w in zip(g.members, g.weights, strict=True)}
    assert given[0] == given[4] == 0


def test_a_receiver_is_served_from_its_own_rack():
    rounds = flush(racks(4, 4), Settings(), frozenset({6}))

    (serving,) = (group for group in rounds[-1] if 6 in group.members)
    assert serving.members == (4, 6)
    assert serving.weights == (1.0, 0.0)


def test_a_lone_holder_serves_many_receivers_like_a_tree():
    rounds = flush(flat(16), Settings(group_size=4), frozenset(range(1, 16)))

    assert len(rounds) == 2
    assert flush_error(rounds, 16, frozenset(range(1, 16))) == 0


def test_receivers_alone_are_refused():
    with pytest.raises(ScheduleError, match="all 2 members of the view are receivers"):
        flush((Place(), Place()), Settings(), frozenset({0, 1}))
