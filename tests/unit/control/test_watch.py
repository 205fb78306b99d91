"""Which exchanges a tick looks at, and when."""

from dssync.control.exchange import Exchange
from dssync.control.watch import Watch


def timed(number: int, deadline_seconds: float | None) -> Exchange:
    exchange = Exchange(number, "train", strict=False, members=("a",), unweighted=frozenset())
    exchange.deadline_seconds = deadline_seconds
    return exchange


def watching(*exchanges: Exchange) -> Watch:
    watch = Watch()
    for exchange in exchanges:
        watch.add(exchange)
    return watch


def test_a_tick_is_due_when_the_earliest_deadline_is_over() -> None:
    watch = watching(timed(0, 3.0), timed(1, 2.0), timed(2, None))

    assert not watch.is_due(1.9)
    assert watch.is_due(2.0)


def test_a_deadline_that_was_moved_forward_counts_once_it_is_told() -> None:
    moved = timed(0, 3.0)
    watch = watching(moved)
    moved.deadline_seconds = 1.0

    watch.add(moved)

    assert watch.is_due(1.0)


def test_deadlines_that_are_over_or_moved_are_not_due_for_ever() -> None:
    moved = timed(0, 1.0)
    watch = watching(moved, timed(0, 5.0))
    moved.deadline_seconds = None

    watch.refresh()

    assert not watch.is_due(4.9)
    assert watch.is_due(5.0)


def test_what_is_closed_is_looked_at_no_more() -> None:
    low, high, never = timed(0, 1.0), timed(1, 1.0), timed(2, None)
    watch = watching(high, low)
    assert watch.spans_rounds
    assert watch.exchanges() == [low, high]

    for exchange in (never, low):
        watch.remove(exchange)

    assert not watch.spans_rounds
    assert watch.exchanges() == [high]
