"""Seeded permutations that every member computes alike, today and in ten years.

Schedules and the order of the data are pure functions of a seed, and members may run different
Python versions. The streams of library generators are not promised to stay, so this is an own
Fisher-Yates shuffle (Knuth, TAOCP volume 2, algorithm P) over SHA-256 in counter mode.
"""

import hashlib
import struct
from collections.abc import Iterator

_WORDS = struct.Struct(">8I")
_WORD_RANGE = 2**32


def permutation(n: int, *key: str | int) -> list[int]:
    """Shuffle ``range(n)`` by a key.

    Args:
        n: Length, below 2**32.
        key: What the permutation depends on; the order and the types of the parts count.

    Returns:
        A list that holds each of 0 … n-1 once; all n! orders are equally likely over the keys.
    """
    order = list(range(n))
    words = _words(_encoded(key))
    for last in range(n - 1, 0, -1):
        chosen = index_below(last + 1, words)
        order[last], order[chosen] = order[chosen], order[last]
    return order


def index_below(choices: int, words: Iterator[int]) -> int:
    """Take an index below ``choices`` from uniform 32-bit words, without favour for any.

    A word at or above the last whole multiple of ``choices`` is thrown away: its remainder would
    make small indices likelier.
    """
    limit = _WORD_RANGE - _WORD_RANGE % choices
    while (word := next(words)) >= limit:
        pass
    return word % choices


def _encoded(key: tuple[str | int, ...]) -> bytes:
    """Encode a key so that no two keys share an encoding: kind, length, value of each part."""
    parts = []
    for part in key:
        value = str(part).encode()
        kind = b"s" if isinstance(part, str) else b"i"
        parts.append(kind + str(len(value)).encode() + b":" + value)
    return b"".join(parts)


def _words(prefix: bytes) -> Iterator[int]:
    """Yield an endless stream of 32-bit words, eight from each digest of prefix and counter."""
    base = hashlib.sha256(prefix)
    counter = 0
    while True:
        block = base.copy()
        block.update(b"#" + counter.to_bytes(8, "big"))
        yield from _WORDS.unpack(block.digest())
        counter += 1
