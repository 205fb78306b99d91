"""A state is copied whole, whoever copies which part of it."""

import math

import pytest
import torch
from hypothesis import given, strategies as st

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
    tensors = [
        torch.arange(PIECE_BYTES + 9).to(torch.uint8),
        torch.arange(5 * PIECE_BYTES).to(torch.uint8),
    ]
    sizes = [each.numel() for each in tensors]
    buffer = torch.zeros(sum(sizes), dtype=torch.uint8)
    places = [(0, sizes[0]), (sizes[0], sizes[1])]
    copier = Copier(buffer, list(buffer.split(sizes)), places, threads)

    copier.copy(tensors)

    assert torch.equal(buffer, torch.cat(tensors))


def test_what_does_not_lie_in_memory_as_it_reads_is_copied_as_it_reads() -> None:
    values = torch.complex(torch.arange(4.0), torch.ones(4))
    state = [values.conj(), values.conj().imag, values.real, torch.ones(2, 3, 4, 5).mT]

    taken = take_snapshot(state, None)

    assert isinstance(taken.state, list)
    assert all(map(torch.equal, taken.state, state))


def test_memory_is_filled_again_by_a_state_that_lies_otherwise() -> None:
    square = torch.arange(math.isqrt(PIECE_BYTES) ** 2, dtype=torch.float32)
    square = square.reshape(math.isqrt(PIECE_BYTES), -1)
    memory = take_snapshot([square], None).memory

    taken = take_snapshot([square.t()], memory)

    assert taken.memory is memory
    assert isinstance(taken.state, list)
    assert torch.equal(taken.state[0], square.t())
