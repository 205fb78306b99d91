"""A job that lost its state starts its data anew, without being told their size again."""

from dssync.control.ledger import Ledger
from dssync.control.messages import Track


def test_a_renewed_ledger_knows_the_run_and_has_nothing_done() -> None:
    ledger = Ledger()
    ledger.register((Track("", 3),), 2)
    ledger.commit("a", ledger.take("a", 2))
    ledger.take("b", 2)

    renewed = ledger.renewed()

    assert (renewed.total, renewed.committed, renewed.progress) == (6, 0, 0.0)
    assert renewed.take("c", 10) == (0, 1, 2, 3, 4, 5)
