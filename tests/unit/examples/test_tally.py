"""The outside record of committed samples tells lost and repeated ones from exact ones."""

from collections import Counter
from typing import Any

from examples.demo.tally import Line, Trial, tally

DATA = Counter([1, 2, 3, 4])


def step(own: str, *pending: int) -> Line:
    return {"event": "step", "own": own, "pending": list(pending)}


def committed(own: str, number: int, members: tuple[str, ...], *samples: int) -> Line:
    common: dict[str, Any] = {"event": "round", "kind": "train", "round": number}
    return {**common, "own": own, "members": members, "samples": list(samples)}


def both(number: int) -> list[Line]:
    return [
        step("a", 1, 2),
        step("b", 3, 4),
        committed("a", number, ("a", "b"), 1, 2),
    ]


def test_what_all_members_report_is_counted() -> None:
    found = tally([*both(0), committed("b", 0, ("a", "b"), 3, 4)])

    assert found.committed == DATA
    assert found.explains(DATA)


def test_a_mate_is_the_witness_of_who_died_before_its_report() -> None:
    assert tally(both(0)).committed == DATA


def test_a_mate_is_the_witness_of_who_was_put_out_before_its_report_and_entered_again() -> None:
    back = committed("b", 5, ("a", "b"))

    assert tally([*both(0), back]).committed == DATA


def test_rounds_after_it_entered_again_say_nothing_of_what_a_member_held_before() -> None:
    held = [step("b", 3, 4), committed("a", 0, ("a",), 1, 2)]
    back = [committed("a", 5, ("a", "b")), committed("b", 5, ("a", "b"))]

    found = tally([*held, *back])

    assert found.committed == Counter([1, 2])
    assert found.explains(DATA)


def test_who_died_alone_has_committed_all_or_nothing() -> None:
    found = tally([step("a", 1, 2), committed("a", 0, ("a",), 1, 2), step("b", 3, 4)])

    assert found.explains(DATA)
    assert found.explains(Counter([1, 2]))
    assert not found.explains(Counter([1, 2, 3]))


def test_what_a_mate_has_ended_a_round_without_was_not_committed_in_it() -> None:
    lines = [step("b", 3, 4), step("a", 1, 2), committed("a", 0, ("a",), 1, 2)]

    found = tally(lines, {"b": [Trial(0, frozenset({"a"}))]})

    assert not found.explains(DATA)
    assert found.explains(Counter([1, 2]))


def test_what_went_into_no_attempt_was_not_committed() -> None:
    assert not tally([step("a", 1, 2)], {}).explains(Counter([1, 2]))


def test_what_no_mate_was_left_to_tell_of_has_counted_as_a_whole_or_not_at_all() -> None:
    lines = [step("b", 3, 4), step("a", 1, 2), step("c", 5), committed("c", 0, ("c",), 5)]

    found = tally(lines, {each: [Trial(0, frozenset({"a", "b"} - {each}))] for each in "ab"})

    assert found.explains(Counter([1, 2, 3, 4, 5]))
    assert found.explains(Counter([5]))


def test_what_went_into_a_doubtful_round_has_counted_as_a_whole_or_not_at_all() -> None:
    found = tally([step("a", 1, 2), committed("a", 0, ())], {"a": [Trial(0, frozenset({"b"}))]})

    assert found.explains(Counter([1, 2]))
    assert found.explains(Counter())


def test_a_trial_after_it_entered_again_says_nothing_of_what_a_member_held_before() -> None:
    held = [step("b", 3, 4), committed("a", 5, ("a", "b"), 1, 2)]
    back = committed("b", 5, ("a", "b"))

    assert not tally([*held, back], {"b": [Trial(5, frozenset({"a"}))]}).explains(DATA)


def test_a_part_that_is_chosen_first_and_leaves_no_other_that_fits_is_not_the_last_word() -> None:
    lines = [step("a", 1, 2), step("b", 1), step("c", 2, 3), step("d", 2, 3), step("e", 3)]

    assert tally(lines).explains(Counter([1, 2, 3]))
    assert tally(lines).explains(Counter([2, 3, 2, 3]))
    assert not tally(lines).explains(Counter([1, 1, 1]))


def test_a_thousand_parts_are_told_apart_at_once() -> None:
    lines = [step(f"w{each}", each, each + 1) for each in range(0, 5000, 2)]

    assert tally(lines).explains(Counter(range(2000)))
    assert not tally(lines).explains(Counter(range(1999)))


def test_a_sample_that_counts_twice_is_found() -> None:
    lines = [*both(0), committed("b", 0, ("a", "b"), 3, 4), committed("a", 1, ("a",), 4)]

    assert not tally(lines).explains(DATA)


def test_a_sample_that_is_lost_is_found() -> None:
    assert not tally([step("a", 1), committed("a", 0, ("a",), 1)]).explains(DATA)
