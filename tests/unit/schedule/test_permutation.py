import time
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from dssync.schedule.permutation import index_below, permutation


@given(n=st.integers(0, 500), seed=st.integers())
def test_holds_each_index_once(n, seed):
    assert sorted(permutation(n, seed)) == list(range(n))


@pytest.mark.parametrize(
    "other",
    [("a", 2), (1, "a"), ("a1",), ("a", "1"), ("a", 1, 0), ("a", -1)],
)
def test_every_part_of_the_key_counts_with_its_order_and_type(other):
    assert permutation(50, *other) != permutation(50, "a", 1)


def test_parts_of_the_key_do_not_run_together():
    assert permutation(50, "asb") != permutation(50, "a", "b")


def test_words_that_would_favour_small_indices_are_thrown_away():
    words = iter([3 * 2**30, 2**32 - 1, 3 * 2**30 - 1])

    assert index_below(3 * 2**30, words) == 3 * 2**30 - 1
    assert index_below(2, iter([2**32 - 1])) == 1


def test_all_orders_are_equally_likely():
    drawn = Counter(tuple(permutation(4, key)) for key in range(12_000))

    expected = 12_000 / 24
    chi_squared = sum((count - expected) ** 2 / expected for count in drawn.values())
    assert len(drawn) == 24
    assert chi_squared < 49.7  # 99.9 % quantile with 23 degrees of freedom


def test_an_epoch_of_100_000_samples_is_shuffled_in_half_a_second():
    started = time.process_time()

    permutation(100_000, 1, "epoch", 0)

    assert time.process_time() - started < 0.5
