"""A state is copied whole, whoever copies which part of it."""

import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, strategies as st
from torch.utils._pytree import tree_map

from dssync.worker.copying import PIECE_BYTES, Copier, pieces
from dssync.worker.staging import take_snapshot

SIZES = st.lists(st.integers(0, 3 * PIECE_BYTES), max_size=8)


@given(SIZES)
def test_each_byte_of_each_tensor_is_in_one_piece(sizes: list[int]) -> None:
    offsets = [sum(sizes[:number]) for number in range(len(sizes))]

    found = pieces(zip(offsets, sizes, strict=True))

    assert all(0 < piece.size <= PIECE_BYTES for piece in found)
    assert all(piece.target == offsets[piece.tensor] + piece.skip for piece in found)
    covered = sorted((piece.tensor, piece.skip, piece.skip + piece.size) for piece in found)
    for tensor, size in enumerate(sizes):
        limits = [0, *(end for index, _, end in covered if index == tensor)]
        assert [first for index, first, _ in covered if index == tensor] == limits[:-1]
        assert limits[-1] == size


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_large_tensors_are_copied_by_any_number_of_threads(threads: int) -> None:
    random = torch.Generator().manual_seed(threads)
    tensors = [
        torch.randint(0, 256, (size,), dtype=torch.uint8, generator=random)
        for size in (PIECE_BYTES + 9, 5 * PIECE_BYTES)
    ]
    sizes = [each.numel() for each in tensors]
    buffer = torch.zeros(sum(sizes), dtype=torch.uint8)
    places = [(0, sizes[0]), (sizes[0], sizes[1])]
    copier = Copier(buffer, list(buffer.split(sizes)), places, threads)

    copier.copy(tensors)

    assert torch.equal(buffer, torch.cat(tensors))


COMPLEX = torch.complex(torch.arange(4.0), torch.ones(4))


class Wrapped(torch.Tensor):
    """A tensor that holds another one, as of an optimizer with few bits, and no memory itself."""

    inner: torch.Tensor

    @classmethod
    def around(cls, inner: torch.Tensor) -> "Wrapped":
        made = cls._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        bare = tree_map(lambda each: each.inner if isinstance(each, cls) else each, args)
        return function(*bare, **(kwargs or {}))


@pytest.mark.parametrize(
    "tensor",
    [
        COMPLEX.conj(),
        torch._neg_view(torch.arange(4.0)),
        COMPLEX.real,
        torch.ones(2, 3, 4, 5).mT,
        Wrapped.around(torch.arange(4.0)),
        torch._efficientzerotensor((4,)),
    ],
    ids=["conjugated", "negated", "strided", "transposed", "of a class of its own", "zeros"],
)
def test_what_does_not_lie_in_memory_as_it_reads_is_copied_as_it_reads(
    tensor: torch.Tensor,
) -> None:
    taken = take_snapshot([tensor], None)

    assert isinstance(taken.state, list)
    assert torch.equal(taken.state[0], tensor.clone())


AT_EXIT = """
import atexit
import torch
from dssync.worker.staging import take_snapshot
large = torch.arange(1 << 20)
atexit.register(lambda: print(torch.equal(take_snapshot([large], None).state[0], large)))
"""


def test_a_copy_at_the_end_of_the_interpreter_needs_no_thread() -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_EXIT],
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
    )

    assert done.stdout == "True\n", done.stderr


def test_memory_is_filled_again_by_a_state_that_lies_otherwise() -> None:
    square = torch.arange(math.isqrt(PIECE_BYTES) ** 2, dtype=torch.float32)
    square = square.reshape(math.isqrt(PIECE_BYTES), -1)
    memory = take_snapshot([square], None).memory

    taken = take_snapshot([square.t()], memory)

    assert taken.memory is memory
    assert isinstance(taken.state, list)
    assert torch.equal(taken.state[0], square.t())
