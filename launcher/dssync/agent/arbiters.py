"""The cell that decides who is coordinator, as the launcher reaches it.

An arbiter is one record under compare-and-swap. It is deliberately this small: elections, terms
and views are decided by the state machines of ``dssync.control``; what they need from outside is
only that two candidates who read the same version cannot both win. A folder serves the launchers
of one machine, a fixed endpoint serves jobs that want no failover; the Lease of a job on Kubernetes
is in ``lease``.
"""

import asyncio
import json
import os
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from dssync import contract
from dssync.control.address import address_of
from dssync.control.record import Record as Record
from dssync.errors import ArbiterError

KEPT: Final = 64
"""Records of the past that stay, and so cannot be claimed anew by a process that was stopped."""


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
    """A folder of numbered records, of which the last one counts; for jobs of one machine.

    A swap claims the next number by a hard link, which succeeds for one process alone. There is no
    lock: a coordinator that is stopped inside a swap would keep it, and with it the election of
    its successor.

    It relies on a link(2) that fails where the name exists, whoever made it, and on listings that
    show every link which was made before. Both hold on a local file system, the only kind that is
    tested. Machines may share one that promises both. NFS breaks the second while its clients keep
    attributes, so that a coordinator that was deposed reads that it leads: at the least, it has to
    be mounted with ``noac``, which nobody has tried.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        return await asyncio.to_thread(self.read_now)

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``."""
        return await asyncio.to_thread(self._swap, expected, new)

    def read_now(self) -> Record:
        """See ``Arbiter.read``; blocks, for the disk alone."""
        try:
            while number := self._latest():
                try:
                    text = (self._path / str(number)).read_bytes()
                except FileNotFoundError:
                    continue  # Others have gone on by so many records meanwhile.
                return _decode(text, self._path / str(number), str(number))
        except OSError as error:
            raise ArbiterError(f"arbiter folder {self._path} cannot be read: {error}") from error
        return Record()

    def _swap(self, expected: Record, new: Record) -> Record | None:
        try:
            if (self.read_now().version or "0") != (expected.version or "0"):
                return None
            number = int(expected.version or 0) + 1
            if self._claim(number, _encode(new)) and self._tidy() - number < KEPT:
                return replace(new, version=str(number))
        except OSError as error:
            raise ArbiterError(f"arbiter folder {self._path} cannot be written: {error}") from error
        return None

    def _latest(self) -> int:
        """Return the highest number there is, or 0."""
        try:
            names = os.listdir(self._path)
        except FileNotFoundError:
            return 0
        return _highest(names)

    def _claim(self, number: int, content: bytes) -> bool:
        """Write a record under a number that nobody has used; tell whether that was so."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        fresh = self._path / f".{number}.{secrets.token_hex(8)}"
        try:
            _write(fresh, content)
            os.link(fresh, self._path / str(number))
        except (FileExistsError, FileNotFoundError):
            return False  # Somebody was faster, or so much faster that this was tidied up.
        finally:
            fresh.unlink(missing_ok=True)
        _make_durable(self._path)
        return True

    def _tidy(self) -> int:
        """Remove what is old, and what crashes left; return the highest number.

        One that was removed is at least ``KEPT`` below the highest number ever after, by which a
        process that was stopped in between sees that it claimed it for the second time.
        """
        names = os.listdir(self._path)
        latest = _highest(names)
        for name in names:
            number = name.removeprefix(".").partition(".")[0]
            if number.isdigit() and int(number) <= latest - KEPT:
                (self._path / name).unlink(missing_ok=True)
        return latest


class StaticArbiter:
    """A coordinator at a fixed endpoint, without failover: without its host the job waits for it.

    Only the host can swap, in its own memory. Everybody else reads the endpoint, under term 0,
    and learns the term from the coordinator that answers there.

    Args:
        host: of the endpoint.
        port: of the endpoint.
        is_host: whether this launcher is the one that coordinates.
        term: the host's first one is above it.
    """

    def __init__(self, host: str, port: int, is_host: bool, term: int = 0) -> None:
        address = address_of(host, port)
        values = {contract.RECORD_ADDRESS: address}
        self.is_host = is_host
        guest = Record("0", address, 0, values)
        self._record = Record(term=term, values=values) if is_host else guest

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        return self._record

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``; always None on a launcher that is not the host."""
        if not self.is_host or expected.version != self._record.version:
            return None
        self._record = replace(new, version=str(int(expected.version or 0) + 1))
        return self._record


def _highest(names: list[str]) -> int:
    return max((int(name) for name in names if name.isdigit()), default=0)


def _write(path: Path, content: bytes) -> None:
    """Make a file that survives a loss of power."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _make_durable(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _encode(record: Record) -> bytes:
    fields = {"holder": record.holder, "term": record.term, "values": dict(record.values)}
    return json.dumps(fields, sort_keys=True).encode()


def _decode(text: bytes, path: Path, version: str) -> Record:
    match _load(text):
        case {"holder": str(holder), "term": int(term), "values": values} if _is_text_map(values):
            return Record(version, holder, term, values)
    raise ArbiterError(
        f"file {path} is not an arbiter's record: it begins with {text[:40]!r}; expected JSON "
        "with holder, term and values. Name another folder or remove it"
    )


def _load(text: bytes) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _is_text_map(values: object) -> bool:
    return isinstance(values, dict) and all(isinstance(value, str) for value in values.values())
