"""What one pod alone has committed is told to whoever takes its values."""

from dssync.control.hearsay import Hearsay


def test_what_a_pod_has_committed_by_itself_comes_along_with_its_values() -> None:
    known = Hearsay()
    known.commit(("0.0.a", "0.1.b"), (1, 2))

    assert known.commit(("0.1.b", "1.0.c"), (3, 4)) == (1, 2)


def test_it_comes_along_through_a_mate_in_the_pod_as_well() -> None:
    known = Hearsay()
    known.commit(("0.0.a",), (1,))
    known.commit(("0.0.a", "0.1.b"), (2,))

    assert known.commit(("0.1.b", "1.0.c"), ()) == (1, 2)


def test_what_several_pods_know_is_told_no_more() -> None:
    known = Hearsay()
    known.commit(("0.0.a", "1.0.c"), (1, 2))

    assert known.commit(("0.0.a", "2.0.d"), (3,)) == ()


def test_what_everybody_knows_is_told_no_more() -> None:
    known = Hearsay()
    known.commit(("0.0.a",), (1,))
    known.covered()

    assert known.commit(("0.0.a", "1.0.c"), ()) == ()


def test_whose_values_hold_what_its_pod_alone_knows_can_be_told() -> None:
    known = Hearsay()
    known.commit(("0.0.a", "0.1.b"), (1,))

    assert known.holds("0.1.b")
    assert not known.holds("1.0.c")
