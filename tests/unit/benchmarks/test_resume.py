"""What a kill has cost, when each life counts its rounds from 0."""

from benchmarks.resume.__main__ import Life, Saving, lost_by

LIFE = Life(last=30, resumed=True, slowest_save=2)


def test_rounds_after_the_lifes_own_last_save_are_lost() -> None:
    assert lost_by(LIFE, Saving("checkpoint-000001", 44), Saving("checkpoint-000003", 24)) == 6


def test_a_life_that_has_saved_nothing_loses_all_of_its_rounds() -> None:
    before = Saving("checkpoint-000001", 44)
    assert lost_by(LIFE, before, before) == 31
