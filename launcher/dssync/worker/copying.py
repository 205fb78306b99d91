"""Copies a state into one buffer, with as many threads as torch may use.

torch divides each tensor between its threads, which wait for one another before the next one: a
tenth of the copy with tensors of half a megabyte. Here each thread takes the next piece when it
has done one. The training waits for the copy, so that its cores are free.
"""

import contextlib
import ctypes
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from typing import Final, NamedTuple

import torch

MOST_THREADS: Final = 8
"""Beyond that they wait for the memory, and for Python between two pieces."""
PIECE_BYTES: Final = 1 << 19
"""Of 128 kB to 2 MB the quickest (docs/decisions, 2026-11-30-copy-of-a-state)."""


class Piece(NamedTuple):
    """Bytes of one tensor, all of them or a part.

    Attributes:
        tensor: its index.
        skip: bytes of the tensor before the piece.
        target: bytes of the buffer before the piece.
        size: bytes.
    """

    tensor: int
    skip: int
    target: int
    size: int


def pieces(places: Iterable[tuple[int, int]]) -> list[Piece]:
    """Cut tensors into pieces that are copied one by one.

    Args:
        places: offset in the buffer and bytes of each tensor.
    """
    return [
        Piece(tensor, skip, offset + skip, min(PIECE_BYTES, size - skip))
        for tensor, (offset, size) in enumerate(places)
        for skip in range(0, size, PIECE_BYTES)
    ]


class Copier:
    """Fills one buffer again and again.

    Args:
        buffer: bytes in host memory.
        views: the tensors in it.
        places: offset and bytes of each.
        threads: how many may copy, with the calling one.
    """

    def __init__(
        self,
        buffer: torch.Tensor,
        views: list[torch.Tensor],
        places: Iterable[tuple[int, int]],
        threads: int,
    ) -> None:
        self._buffer = buffer
        self._views = views
        self._pieces = pieces(places)
        # A state of a few kilobytes is copied before a helper wakes up.
        worth = 1 + buffer.numel() // (2 * PIECE_BYTES)
        self._helpers = min(threads, MOST_THREADS, worth) - 1

    def copy(self, tensors: list[torch.Tensor]) -> None:
        """Copy tensors of the views' types and shapes; a device's copies may still run after."""
        if all(map(_is_plain, tensors)):
            self._copy_pieces(tensors)
        else:
            with torch.no_grad():
                torch._foreach_copy_(self._views, tensors, non_blocking=self._buffer.is_pinned())

    def _copy_pieces(self, tensors: list[torch.Tensor]) -> None:
        # Each piece is handed out once, to whoever asks first.
        left, helpers = iter(self._pieces), list[Future[None]]()
        try:
            # As the interpreter ends, or without a thread to spare, this one does it all.
            with contextlib.suppress(RuntimeError):
                for _ in range(self._helpers):
                    helpers.append(_pool().submit(self._move, left, tensors))
            self._move(left, tensors)
        finally:
            # Who was interrupted leaves nobody behind who still writes.
            for _ in left:
                pass
            wait(helpers)

    def _move(self, left: Iterator[Piece], tensors: list[torch.Tensor]) -> None:
        start = self._buffer.data_ptr()
        for index, skip, target, size in left:
            ctypes.memmove(start + target, tensors[index].data_ptr() + skip, size)


@cache
def _pool() -> ThreadPoolExecutor:
    # Kept: starting a thread takes as long as there is to win.
    return ThreadPoolExecutor(MOST_THREADS - 1, "dssync-copy")


def _is_plain(tensor: torch.Tensor) -> bool:
    """Return whether the elements lie in host memory in the order in which they are to be."""
    return (
        (type(tensor) is torch.Tensor or type(tensor) is torch.nn.Parameter)
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not (tensor.is_conj() or tensor.is_neg() or tensor._is_zerotensor())
    )
