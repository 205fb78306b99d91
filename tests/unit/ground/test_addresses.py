"""Machines that play nodes beside each other on one host share no address."""

from contextlib import closing

from ground.machine import Addresses


def test_two_at_once_give_out_different_addresses() -> None:
    with closing(Addresses()) as one, closing(Addresses()) as other:
        first, second = {one.next() for _ in range(20)}, {other.next() for _ in range(20)}

    assert len(first) == len(second) == 20
    assert not first & second


def test_a_network_that_was_let_go_is_given_out_again() -> None:
    with closing(Addresses()) as one:
        before = one.next()
        with closing(Addresses()) as other:
            between = other.next()

        with closing(Addresses()) as again:
            assert again.next() == between
    assert before != between
