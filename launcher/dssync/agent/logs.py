"""Where each worker's output goes: the launcher's own streams, files, or both.

The meaning of ``--log-dir``, ``--redirects``, ``--tee`` and ``--local-ranks-filter`` is
torchrun's. Files are ``RUN_SLOT/attempt_RESTARTS/LOCAL_RANK/{stdout,stderr}.log`` below the log
directory (the slot keeps pods apart that share a volume) and are only ever appended to.
"""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dssync.agent.settings import LogSettings, Settings, Stream
from dssync.agent.tee import Tee

_CONSOLES: Final[dict[Stream, int]] = {"stdout": 1, "stderr": 2}
_TAIL_BYTES: Final = 1 << 13


@dataclass(frozen=True)
class Streams:
    """The standard streams of one worker."""

    descriptors: Sequence[int]
    """stdin, stdout and stderr, to be closed once the worker has its own copies."""
    stderr_path: Path | None
    """The file that stderr goes to, if it goes to one."""


class LogFiles:
    """Opens the streams of workers as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._logs: LogSettings = settings.logs
        self._run = f"{settings.job.run_id}_{settings.job.slot}"
        self._role = settings.supervision.role
        self._tee = Tee()

    def open(self, local_rank: int, restarts: int) -> Streams:
        """Open the streams of one worker.

        Raises:
            OSError: A file or directory cannot be made; the error names it.
        """
        with contextlib.ExitStack() as undo:
            descriptors = [os.open(os.devnull, os.O_RDONLY)]
            undo.callback(_close_all, descriptors)
            for stream in _CONSOLES:
                descriptors.append(self._open_stream(stream, local_rank, restarts))
            undo.pop_all()
        in_file = "stderr" in self._in_file(local_rank)
        path = self._path("stderr", local_rank, restarts) if in_file else None
        return Streams(descriptors, path)

    def close(self) -> None:
        """Copy the rest of all streams; may wait for the console."""
        self._tee.close()

    def _in_file(self, local_rank: int) -> frozenset[Stream]:
        nothing: frozenset[Stream] = frozenset()
        redirected = self._logs.redirected.get(local_rank, nothing)
        return redirected | self._logs.teed.get(local_rank, nothing)

    def _open_stream(self, stream: Stream, local_rank: int, restarts: int) -> int:
        shown = self._logs.console_ranks is None or local_rank in self._logs.console_ranks
        if stream not in self._in_file(local_rank):
            return os.dup(_CONSOLES[stream]) if shown else os.open(os.devnull, os.O_WRONLY)
        file = _open_private(self._path(stream, local_rank, restarts))
        if shown and stream in self._logs.teed.get(local_rank, ()):
            return self._tee.add(file, _CONSOLES[stream], f"[{self._role}{local_rank}]:")
        return file

    def _path(self, stream: Stream, local_rank: int, restarts: int) -> Path:
        # Streams go to files only where the command line named a directory.
        run = (self._logs.directory or Path()) / self._run
        return run / f"attempt_{restarts}" / str(local_rank) / f"{stream}.log"


def tail(path: Path) -> str:
    """Return the last 8 KiB of a file, from the start of a line; empty if there is none."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL_BYTES))
        data = file.read()
        if size > _TAIL_BYTES:
            data = data.partition(b"\n")[2]
        return data.decode(errors="replace")
    return ""


def _open_private(path: Path) -> int:
    for directory in reversed(path.parents):
        if not directory.exists():
            directory.mkdir(mode=0o700, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(path, flags, 0o600)


def _close_all(descriptors: Sequence[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)
