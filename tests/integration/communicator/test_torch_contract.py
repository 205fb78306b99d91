"""What the gloo backend assumes of torch beyond its documentation.

A new torch version that breaks one of these must fail here, not in a job: without them groups
would still be built, but could not be given up.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist
from torch.distributed import ProcessGroupGloo, Store

from dssync.worker.sockets import Connections, listener_endpoint
from dssync.worker.store import Mailbox, MailboxStore

MEMBERS = 3


class RecordingStore(Store):
    """Shares keys between threads and records which methods gloo calls."""

    def __init__(self, keys: dict[str, bytes], changed: threading.Condition) -> None:
        super().__init__()
        self.calls: list[str] = []
        self._keys = keys
        self._changed = changed

    def set(self, key: str, value: bytes) -> None:
        self.calls.append("set")
        with self._changed:
            self._keys[key] = value
            self._changed.notify_all()

    def get(self, key: str) -> bytes:
        self.calls.append("get")
        return self._keys[key]

    def wait(self, keys: list[str], timeout: timedelta) -> None:
        self.calls.append("wait")
        with self._changed:
            assert self._changed.wait_for(lambda: all(key in self._keys for key in keys), 10)


class RefusedError(Exception):
    """Raised in a store, to see where it comes out."""


class RefusingStore(Store):
    def set(self, key: str, value: bytes) -> None:
        raise RefusedError(key)


def private_options() -> ProcessGroupGloo._Options:
    options = ProcessGroupGloo._Options()
    options._timeout = timedelta(seconds=10)
    options._threads = 1
    options._devices = [ProcessGroupGloo.create_device(hostname="127.0.0.1", lazy_init=False)]
    return options


def test_a_build_calls_only_set_wait_and_get_and_publishes_once() -> None:
    keys: dict[str, bytes] = {}
    changed = threading.Condition()
    stores = [RecordingStore(keys, changed) for _ in range(MEMBERS)]

    def build(rank: int) -> ProcessGroupGloo:
        return ProcessGroupGloo(stores[rank], rank, MEMBERS, private_options())

    with ThreadPoolExecutor(MEMBERS) as pool:
        groups = list(pool.map(build, range(MEMBERS)))

    assert {call for store in stores for call in store.calls} == {"set", "wait", "get"}
    assert [store.calls.count("set") for store in stores] == [1] * MEMBERS
    assert len(keys) == MEMBERS
    # All members are in this process, so each connection is seen from both ends.
    listeners = {listener_endpoint(blob) for blob in keys.values()}
    assert len(listeners) == MEMBERS
    assert len(Connections().to(listeners)) == MEMBERS * (MEMBERS - 1)
    del groups


def test_an_exception_of_the_store_comes_out_of_the_build_as_it_is() -> None:
    with pytest.raises(RefusedError):
        ProcessGroupGloo(RefusingStore(), 0, 2, private_options())


def test_an_operation_takes_its_timeout_from_its_options() -> None:
    options = dist.AllreduceOptions()

    options.timeout = timedelta(seconds=1.5)

    assert options.timeout == timedelta(seconds=1.5)


def test_the_nccl_groups_have_what_the_backend_calls() -> None:
    # Without a driver their constructors end the process, so only names can be looked at.
    if not dist.is_nccl_available():
        pytest.skip("torch was built without NCCL")
    called = {"allreduce", "abort", "shutdown", "get_error", "memory_stats"}

    assert called <= set(dir(dist.ProcessGroupNCCL2))
    assert called | {"eager_connect_single_device"} <= set(dir(dist.ProcessGroupNCCL))
    options = dist.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=1)
    options.config.blocking = 0
    options.config.max_ctas = 8
    assert (options.config.blocking, options.config.max_ctas) == (0, 8)
    assert dist.AllreduceOptions().asyncOp, "the backend turns it off to keep to one stream"


def test_nccls_bootstrap_is_served_by_the_mailboxs_store() -> None:
    pushed: list[tuple[str, str, bytes]] = []
    mailbox = Mailbox(lambda *blob: pushed.append(blob))
    mailbox_store = MailboxStore(mailbox, "pair", 1.0)  # torch keeps only the C++ half alive
    store = dist.PrefixStore("name", mailbox_store)

    store.set("id", b"unique")
    store.wait(["id"], timedelta(seconds=1))

    assert store.multi_get(["id"]) == [b"unique"]
    assert pushed == [("pair", "name/id", b"unique")]
