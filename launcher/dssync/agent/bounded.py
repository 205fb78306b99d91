"""An arbiter that answers in time, or fails.

An election asks the arbiter for one thing at a time, and the end of a job waits for it. A disk or a
server that neither answers nor fails would hold up both for good.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from dssync.agent.arbiters import Arbiter, Record
from dssync.errors import ArbiterError

CALL_SECONDS: Final = 5.0
"""A call that takes longer counts as no answer; what it does later a look will tell."""
MOST_CALLS: Final = 4
"""Calls under way at once: one that hangs keeps its thread."""

_T = TypeVar("_T")


class BoundedArbiter:
    """An arbiter whose every call ends, by an answer or an ``ArbiterError``.

    Args:
        arbiter: is asked.
        call_seconds: bound of each call.
    """

    def __init__(self, arbiter: Arbiter, call_seconds: float = CALL_SECONDS) -> None:
        self._arbiter = arbiter
        self._call_seconds = call_seconds
        self._calls: set[asyncio.Future[Any]] = set()

    async def read(self) -> Record:
        """See ``Arbiter.read``."""
        self._check_room()
        return await self._bound(self._arbiter.read())

    async def swap(self, expected: Record, new: Record) -> Record | None:
        """See ``Arbiter.swap``."""
        self._check_room()
        return await self._bound(self._arbiter.swap(expected, new))

    def _check_room(self) -> None:
        if len(self._calls) >= MOST_CALLS:
            raise ArbiterError(f"the arbiter has not answered {MOST_CALLS} calls yet")

    async def _bound(self, call: Coroutine[object, object, _T]) -> _T:
        # A thread that hangs cannot be ended, so the call goes on; nobody waits for it.
        task = asyncio.ensure_future(call)
        self._calls.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._call_seconds):
                return await asyncio.shield(task)
        except ArbiterError:
            raise
        except TimeoutError:
            seconds = f"{self._call_seconds:g} s"
            raise ArbiterError(f"the arbiter has not answered for {seconds}") from None
        except Exception as error:
            raise ArbiterError(f"the arbiter cannot be asked: {error!r}") from error

    def _ended(self, task: asyncio.Future[Any]) -> None:
        self._calls.discard(task)
        if not task.cancelled():
            task.exception()  # It was told to who waited, if anybody did.
