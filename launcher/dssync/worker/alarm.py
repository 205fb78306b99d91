"""A timer that a thread can wait for together with a socket, set by another thread for nothing.

Setting it wakes nobody: the kernel does, when the time has come. Python offers ``timerfd`` from
3.13 on only.
"""

import contextlib
import ctypes
import os
import time
from typing import Final

_NONBLOCK_AND_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class _Timer(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class Alarm:
    """Becomes readable once, some time after it was set.

    Args:
        seconds: that time.
    """

    def __init__(self, seconds: float) -> None:
        whole = int(seconds)
        self._timer = _Timer(_Timespec(0, 0), _Timespec(whole, int((seconds - whole) * 1e9)))
        # The call is made in every round, so its arguments are made once.
        self._arguments = (ctypes.byref(self._timer), None)
        self._descriptor = _checked(
            _libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_AND_CLOEXEC)
        )

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._descriptor

    def set(self) -> None:
        """Go off after the time; a second call puts the first one off."""
        _checked(_libc.timerfd_settime(self._descriptor, 0, *self._arguments))

    def quiet(self) -> None:
        """Be no longer readable."""
        # Nothing is there to read if it was set again meanwhile.
        with contextlib.suppress(BlockingIOError):
            os.read(self._descriptor, 8)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
