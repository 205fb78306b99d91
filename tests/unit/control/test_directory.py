"""A communicator id stands for one list of members, and for good."""

from dssync.control.directory import Directory

PAIR = ("0.0.a", "1.0.b")


def test_a_communicator_serves_round_after_round() -> None:
    directory = Directory(term=1)

    assert directory.use("train", PAIR, 0) == directory.use("train", PAIR, 5)


def test_ids_differ_by_members_order_purpose_and_term() -> None:
    directory = Directory(term=1)

    ids = {
        directory.use("train", PAIR, 0),
        directory.use("train", PAIR[::-1], 0),
        directory.use("train", ("0.0.a", "1.0.c"), 0),
        directory.use("flush", PAIR, 0),
        Directory(term=2).use("train", PAIR, 0),
    }

    assert len(ids) == 5


def test_a_broken_one_is_retired_once_and_replaced() -> None:
    directory = Directory(term=1)
    broken = directory.use("train", PAIR, 0)

    directory.break_(broken)

    assert directory.members(broken) == ()
    assert directory.use("train", PAIR, 0) != broken
    assert [directory.retired("0.0.a"), directory.retired("0.0.a")] == [(broken,), ()]


def test_what_no_round_has_used_expires() -> None:
    directory = Directory(term=1)
    old, new = directory.use("train", PAIR, 3), directory.use("flush", PAIR, 4)

    directory.expire(before_round=4)

    assert directory.retired("1.0.b") == (old,)
    assert directory.members(new) == PAIR


def test_a_member_that_comes_back_never_meets_its_former_communicators() -> None:
    directory = Directory(term=1)
    idle, busy = directory.use("flush", PAIR, 0), directory.use("train", PAIR, 0)

    directory.forget("0.0.a", in_use={busy})

    assert directory.members(busy) == PAIR
    assert directory.retired("1.0.b") == (idle,)
    assert directory.use("train", PAIR, 1) != busy
    directory.break_(busy)
    assert directory.members(directory.use("train", PAIR, 2)) == PAIR
