import pytest
from hypothesis import given, settings, strategies as st

from dssync.errors import ScheduleError
from dssync.schedule import (
    MODES,
    Layout,
    Place,
    Settings,
    groups_of,
    needs_replan,
    occupy,
    plan_of,
    replan,
    vacate,
    validate,
)
from unit.schedule.averaging import flat, layouts, racks


def laid_out(places):
    return Layout.of((f"m{number}", place) for number, place in enumerate(places))


def names(layout):
    return [occupant for occupant, _ in layout.members]


def period_groups(layout, chosen):
    """Distinct groups that need a communicator."""
    period = plan_of(layout, chosen).period
    return {group for r in range(period) for group in groups_of(layout, chosen, r)}


def test_racks_are_contiguous_and_the_given_order_holds_within_a_place():
    layout = Layout.of([("b0", Place("z", "b")), ("a0", Place("z", "a")), ("b1", Place("z", "b"))])

    assert names(layout) == ["a0", "b0", "b1"]


@settings(deadline=None, max_examples=60)
@given(places=layouts(largest_rack=9), group_size=st.integers(2, 8), data=st.data())
def test_a_leave_touches_one_group_per_level_and_no_other(places, group_size, data):
    chosen = Settings(group_size=group_size)
    layout = laid_out(places)
    leaver = data.draw(st.sampled_from(names(layout)))

    after = vacate(layout, leaver)

    changed = period_groups(layout, chosen) - period_groups(after, chosen)
    assert all(leaver in group for group in changed)
    assert len(changed) <= plan_of(layout, chosen).period


def test_a_replacement_in_the_same_rack_brings_the_same_groups_back():
    chosen = Settings(group_size=4)
    layout = laid_out(racks(4, 4, 4))

    after = occupy(vacate(layout, "m5"), Place("z", "r001", "new node"), "new")

    assert {
        tuple("m5" if member == "new" else member for member in group)
        for group in period_groups(after, chosen)
    } == period_groups(layout, chosen)
    assert after.cells[5].place == Place("z", "r001", "new node")


def test_a_joiner_prefers_the_hole_of_its_node():
    layout = vacate(vacate(laid_out(racks(4, 4)), "m5"), "m6")

    after = occupy(layout, layout.cells[6].place, "new")

    assert after.cells[6].occupant == "new"


def test_a_joiner_of_another_rack_leaves_the_hole_alone():
    layout = vacate(laid_out(racks(4, 4)), "m5")

    after = occupy(layout, Place("z", "r000", "n"), "new")

    assert after.cells[5].occupant is None
    assert after.cells[8] == (Place("z", "r000", "n"), "new")


def test_a_joiner_of_unknown_rack_may_take_any_hole_and_the_hole_keeps_its_rack():
    layout = vacate(laid_out(racks(4, 4)), "m5")

    after = occupy(layout, Place(node="n"), "new")

    assert after.cells[5] == (Place("z", "r001", "n"), "new")


def test_a_joiner_of_unknown_rack_prefers_a_hole_of_unknown_rack():
    layout = occupy(laid_out(racks(2)), Place(node="n"), "unknown")
    layout = vacate(vacate(layout, "m0"), "unknown")

    after = occupy(layout, Place(node="n'"), "new")

    assert after.cells[2] == (Place(node="n'"), "new")


def test_a_joiner_of_known_rack_does_not_pass_for_a_member_of_an_unknown_one():
    layout = vacate(laid_out(flat(4)), "m1")

    after = occupy(layout, Place("z", "r", "n"), "new")

    assert after.cells[4] == (Place("z", "r", "n"), "new")


def test_nobody_joins_twice_or_leaves_unseen():
    layout = laid_out(flat(2))

    with pytest.raises(ScheduleError, match="m1 cannot join the layout: it has a cell already"):
        occupy(layout, Place(), "m1")
    with pytest.raises(ScheduleError, match="m7 cannot leave the layout: it has no cell"):
        vacate(layout, "m7")


class TestNeedsReplan:
    def test_not_without_holes(self):
        assert not needs_replan(laid_out(flat(7)), Settings())

    @pytest.mark.parametrize(("n", "group_size"), [(4, 4), (9, 3), (16, 4)])
    def test_not_for_one_hole_that_leaves_nobody_alone(self, n, group_size):
        assert not needs_replan(vacate(laid_out(flat(n)), "m1"), Settings(group_size=group_size))

    def test_for_more_holes_than_an_eighth_or_so(self):
        layout = laid_out(flat(64))
        for number in range(7):
            layout = vacate(layout, f"m{number * 9}")

        assert not needs_replan(layout, Settings(group_size=8))
        assert needs_replan(vacate(layout, "m63"), Settings(group_size=8))

    def test_where_a_hole_leaves_more_members_alone_than_need_be(self):
        layout = vacate(laid_out(flat(4)), "m3")

        assert needs_replan(layout, Settings(group_size=2))
        assert not needs_replan(replan(layout), Settings(group_size=2))

    def test_where_the_leavers_were_the_only_bridge(self):
        chosen = Settings(group_size=4)
        layout = laid_out(racks(1, 1, 16, 16))
        (bridge,) = (group for group in groups_of(layout, chosen, 2) if "m0" in group)

        for leaver in bridge[2:]:
            layout = vacate(layout, leaver)

        assert bridge[:2] == ("m0", "m1")
        assert needs_replan(layout, chosen)
        assert not needs_replan(replan(layout), chosen)

    def test_not_when_nobody_is_left(self):
        assert not needs_replan(vacate(laid_out(flat(1)), "m0"), Settings())


def test_a_replan_drops_the_holes():
    layout = replan(vacate(laid_out(racks(2, 2)), "m1"))

    assert names(layout) == ["m0", "m2", "m3"]
    assert layout.hole_count == 0


@settings(deadline=None, max_examples=60)
@given(
    places=layouts(largest_rack=4),
    mode=st.sampled_from(MODES),
    group_size=st.integers(2, 5),
    data=st.data(),
)
def test_under_churn_every_round_holds_each_member_once(places, mode, group_size, data):
    chosen = Settings(mode, group_size=group_size, fragments=2)
    layout = laid_out(places)
    for step in range(data.draw(st.integers(1, 12))):
        if len(names(layout)) > 1 and data.draw(st.booleans()):
            layout = vacate(layout, data.draw(st.sampled_from(names(layout))))
        else:
            layout = occupy(layout, data.draw(st.sampled_from(places)), f"new{step}")
        if needs_replan(layout, chosen):
            layout = replan(layout)

        made = plan_of(layout, chosen)
        validate(made)
        for r in range(made.period):
            listed = [member for group in groups_of(layout, chosen, r) for member in group]
            assert sorted(listed) == sorted(names(layout))
