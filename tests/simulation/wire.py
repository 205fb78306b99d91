"""What travels: decoded once for all who look at it, and without the outer envelope.

The bodies between members and coordinator are the real JSON. The envelope around them, and what
launchers say for themselves, goes as a reference: its encoding has tests of its own.
"""

from functools import lru_cache

from dssync.control import messages as m

to_member = lru_cache(maxsize=4096)(m.TO_MEMBER.decode)
from_member = lru_cache(maxsize=1024)(m.MEMBER.decode)

TIMED_OUT = "operation timed out"
NOT_BUILT = "no communicator"
"""Why an operation failed in which a mate did not take part."""


class Parcels:
    """Stands for encoded messages in the payloads of sessions."""

    def __init__(self) -> None:
        self._contents: list[object] = []

    def pack(self, message: object) -> bytes:
        """Return the payload that stands for a message."""
        self._contents.append(message)
        return b"%d" % (len(self._contents) - 1)

    def unpack(self, payload: bytes) -> object:
        """Return the message that a payload stands for."""
        return self._contents[int(payload)]
