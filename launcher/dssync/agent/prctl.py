"""The two Linux process controls that Python's standard library does not offer.

A launcher, its fork-server and the workers form a chain in which nobody may outlive the one
above. The kernel keeps that promise (``PR_SET_PDEATHSIG``), because the parent may be killed by
a signal that it cannot catch.
"""

import ctypes
import os
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_libc: Final = ctypes.CDLL(None, use_errno=True)


def die_with_parent(signal_number: int, parent_pid: int) -> None:
    """Ask the kernel to send this process a signal when its parent's thread ends.

    The setting does not survive a fork, so each level asks for itself. The parent may have died
    between the fork and this call; the check afterwards closes that gap.

    Args:
        signal_number: Signal to be sent.
        parent_pid: Process id of the parent, as the parent itself knew it before it forked.

    Raises:
        SystemExit: The parent is already gone.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent_pid:
        raise SystemExit(1)


def adopt_orphans() -> None:
    """Become the parent of all descendants whose own parent dies, in place of process 1."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
