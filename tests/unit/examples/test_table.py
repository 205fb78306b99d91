"""The demo fails when what it is to show did not happen."""

from examples.demo.table import shortcomings

GOOD: dict[str, object] = {"survivors_restarted": 0, "samples_seen_once": True}


def test_a_demo_that_shows_what_it_promises_has_no_shortcoming() -> None:
    assert shortcomings(GOOD) == []


def test_each_broken_promise_of_the_demo_is_named() -> None:
    assert shortcomings(GOOD | {"survivors_restarted": 2}) == ["2 survivors were restarted"]
    assert shortcomings(GOOD | {"samples_seen_once": False}) == [
        "not every sample was committed once in each epoch"
    ]
