"""Blobs in a mailbox, without any process group."""

import pytest

from dssync.errors import BuildCancelledError, CommunicatorError
from dssync.worker.store import Mailbox


def mailbox() -> Mailbox:
    return Mailbox(lambda *blob: None)


def test_what_is_put_is_sent_and_kept() -> None:
    sent = []
    box = Mailbox(lambda *blob: sent.append(blob))

    box.put("pair", "0/0", b"mine")

    assert sent == [("pair", "0/0", b"mine")]
    assert box.take("pair", ["0/0"], 0) == [b"mine"]


def test_a_blob_may_come_before_the_build_starts() -> None:
    box = mailbox()

    box.deliver("pair", "0/1", b"early")

    assert box.take("pair", ["0/1"], 0) == [b"early"]


def test_the_missing_key_is_named() -> None:
    box = mailbox()
    box.deliver("pair", "0/0", b"")

    with pytest.raises(CommunicatorError, match=r"no blob for \['0/1'\] within 0 s"):
        box.take("pair", ["0/0", "0/1"], 0)


def test_nothing_is_pushed_for_a_discarded_communicator() -> None:
    sent = []
    box = Mailbox(lambda *blob: sent.append(blob))
    box.discard("pair")

    with pytest.raises(BuildCancelledError):
        box.put("pair", "0/0", b"mine")

    assert sent == []


def test_blobs_of_communicators_that_are_never_built_do_not_pile_up() -> None:
    box = mailbox()

    for number in range(10_000):
        box.deliver(f"communicator-{number}", "0/0", b"x" * 178)

    assert len(box) <= 256
    assert box.take("communicator-9999", ["0/0"], 0)
