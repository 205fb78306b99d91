"""The cell that decides who is coordinator, as the launcher reaches it.

An arbiter is one record under compare-and-swap. It is deliberately this small: elections, terms
and views are decided by the state machines of ``dssync.control``; what they need from outside is
only that two candidates who read the same version cannot both win. A JSON file serves the
launchers of one machine, a fixed endpoint serves jobs that want no failover; the Lease of a job on
Kubernetes is in ``lease``.
"""

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final, Protocol

from dssync import contract
from dssync.control.address import address_of
from dssync.control.record import Record as Record
from dssync.errors import ArbiterError

LOCK_WAIT_SECONDS: Final = 5.0
"""A swap holds the lock for milliseconds; longer means that its holder was stopped inside."""
_LOCK_RETRY_SECONDS: Final = 0.001


class Arbiter(Protocol):
    """A record under compare-and-swap, shared by the launchers of a job."""

    async def read(self) -> Record:
        """Return the record; the empty one when nothing was written yet.

        Raises:
            ArbiterError: The cell cannot be reached or holds something else.
        """
        ...

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """Write ``new`` if the cell still holds the version of ``expected``.

        Args:
            expected: The record as it was read; only its version is compared.
            new: Holder, term and values to write; its version is ignored.

        Returns:
            What was written, under its new version, or None when somebody else was faster.

        Raises:
            ArbiterError: The cell cannot be reached or holds something else.
        """
        ...


class FileArbiter:
    """A JSON file; the arbiter of jobs that live on one machine.

    Readers take no lock: the file is replaced by rename, so they see one state or the next. The
    lock is a side file, because the renamed file is a new inode each time. It is released by an
    explicit unlock and not by closing alone, so that a process forked meanwhile cannot keep it.
    """

    def __init__(self, path: Path, lock_wait_seconds: float = LOCK_WAIT_SECONDS) -> None:
        self._path = path
        self._lock_wait_seconds = lock_wait_seconds
        self._lock_path = path.with_name(path.name + ".lock")

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        return await asyncio.to_thread(self._read)

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``."""
        return await asyncio.to_thread(self._swap, expected, new)

    def _read(self) -> Record:
        try:
            text = self._path.read_bytes()
        except FileNotFoundError:
            return Record()
        except OSError as error:
            raise ArbiterError(f"arbiter file {self._path} cannot be read: {error}") from error
        return _decode(text, self._path)

    def _swap(self, expected: Record, new: Record) -> Record | None:
        try:
            with locked(self._lock_path, self._lock_wait_seconds):
                current = self._read()
                if current.version != expected.version:
                    return None
                written = replace(new, version=str(int(current.version or 0) + 1))
                _publish(self._path, json.dumps(asdict(written), sort_keys=True).encode())
                return written
        except OSError as error:
            raise ArbiterError(f"arbiter file {self._path} cannot be written: {error}") from error


class StaticArbiter:
    """A coordinator at a fixed endpoint, without failover: when its host goes, the job goes.

    Only the host can swap, in its own memory. Everybody else reads the endpoint, under term 0,
    and learns the term from the coordinator that answers there.
    """

    def __init__(self, host: str, port: int, is_host: bool) -> None:
        address = address_of(host, port)
        values = {contract.RECORD_ADDRESS: address}
        self.is_host = is_host
        self._record = Record(values=values) if is_host else Record("0", address, 0, values)

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        return self._record

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``; always None on a launcher that is not the host."""
        if not self.is_host or expected.version != self._record.version:
            return None
        self._record = replace(new, version=str(int(expected.version or 0) + 1))
        return self._record


@contextmanager
def locked(path: Path, wait_seconds: float) -> Iterator[None]:
    """Hold an exclusive lock on a side file, which is created where it is missing.

    Raises:
        ArbiterError: Somebody else held it for ``wait_seconds``.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path, wait_seconds)
        try:
            yield
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: Path, wait_seconds: float) -> None:
    give_up = time.monotonic() + wait_seconds
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > give_up:
                raise ArbiterError(
                    f"arbiter lock {path} was held by another process for more than "
                    f"{wait_seconds:g} s; a stopped process may hold it: continue or end it"
                ) from None
        time.sleep(_LOCK_RETRY_SECONDS)


def _publish(path: Path, content: bytes) -> None:
    """Replace the file in one step that survives a power loss."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.rename(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _decode(text: bytes, path: Path) -> Record:
    match _load(text):
        case {
            "version": str(version),
            "holder": str(holder),
            "term": int(term),
            "values": values,
        } if version.isascii() and version.isdigit() and _is_text_map(values):
            return Record(version, holder, term, values)
    raise ArbiterError(
        f"arbiter file {path} is not an arbiter record: it begins with {text[:40]!r}; "
        "expected JSON with version, holder, term and values. Name another file or remove it"
    )


def _load(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_text_map(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
