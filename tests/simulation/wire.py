"""Decoding with a memory: coordinator, observers and members look at the same messages."""

from functools import lru_cache

from dssync.control import messages as m

to_member = lru_cache(maxsize=4096)(m.TO_MEMBER.decode)
from_member = lru_cache(maxsize=1024)(m.MEMBER.decode)
