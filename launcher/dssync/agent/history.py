"""A launcher's part of the view log: the views that it makes as coordinator, and durability."""

import errno
import os
from pathlib import Path
from typing import Final

from dssync.control.view import View
from dssync.control.viewlog import Viewed, line_of
from dssync.errors import UsageError

SYNC_SECONDS: Final = 1.0
"""What a machine that fails may cost; a process that is killed costs nothing."""


class ViewLog:
    """The file that workers append to as well (``worker.journal``); nothing without a path.

    A job does not wait for its log, nor end with it: what cannot be written is the end of the log.

    Raises:
        UsageError: The file cannot be opened.
    """

    _trouble: str | None = None
    """Why nothing is written any more; empty once somebody was told."""

    def __init__(self, path: Path | None) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        try:
            self._file = -1 if path is None else os.open(path, flags, 0o600)
        except OSError as error:
            raise UsageError(f"--view-log {path} cannot be opened: {error.strerror}") from None
        self._seen = (0, 0)
        self._synced_seconds = 0.0

    def viewed(self, view: View) -> None:
        """Note a view, unless it is the last one still."""
        if self._file < 0 or self._trouble is not None or (view.term, view.sequence) == self._seen:
            return
        self._seen = (view.term, view.sequence)
        unweighted = tuple(sorted(view.unweighted))
        line = line_of(Viewed(view.term, view.sequence, view.members, unweighted))
        try:
            if os.write(self._file, line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self._trouble = str(error)

    def take_trouble(self) -> str:
        """Return once why the log has ended; nothing while it goes on, and afterwards."""
        trouble = self._trouble
        if trouble:
            self._trouble = ""
        return trouble or ""

    def is_due(self, now: float) -> bool:
        """Tell whether the file is to be made durable again; then not for a while."""
        if self._file < 0 or now - self._synced_seconds < SYNC_SECONDS:
            return False
        self._synced_seconds = now
        return True

    def sync(self) -> None:
        """Make the file durable; may wait for the disk."""
        if self._file >= 0 and self._trouble is None:
            try:
                os.fsync(self._file)
            except OSError as error:
                self._trouble = str(error)

    def close(self) -> None:
        """Make the file durable and close it."""
        if self._file >= 0:
            self.sync()
            os.close(self._file)
            self._file = -1
