from dssync.control.exchange import Exchange


def test_a_failed_operation_is_explained_by_the_loss_that_becomes_known_later():
    exchange = Exchange(3, "train", strict=False, members=("a", "b"), unweighted=frozenset())
    exchange.collect("failed", now=1.0, deadline=2.0)

    exchange.explain("exit")

    assert exchange.cause == "exit"
