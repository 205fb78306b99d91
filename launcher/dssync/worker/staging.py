"""A copy of the training state in one buffer, for the wire and for the disk.

The state is copied once, at a moment when nothing trains, into memory that is kept for the next
copy. Whatever else it takes to send or to write it is done by another thread, later.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Final, cast

import torch

from dssync.errors import TransferError
from dssync.worker.tree import pack, unpack

ALIGNMENT: Final = 64
Spec = tuple[torch.dtype, tuple[int, ...]]
"""Type and shape of a tensor."""
Moment = tuple[int, int, int]
"""When a snapshot was taken, as the view log counts (``control.viewlog.Point``)."""


class Memory:
    """Where a snapshot is, kept for the next one.

    Args:
        specs: of all tensors, in order.
        pinned: as a device's copies want it.
        reuse: memory that was there before, of any size.
    """

    def __init__(
        self, specs: list[Spec], pinned: bool, reuse: "torch.Tensor | None" = None
    ) -> None:
        offsets, size = _offsets(specs)
        if reuse is None or reuse.numel() < size:
            reuse = torch.empty(size, dtype=torch.uint8, pin_memory=pinned)
        self.specs = specs
        self.whole = reuse
        self.pinned = reuse.is_pinned()
        """Whether a device copies into it by itself."""
        self.used = reuse[:size]
        """The beginning of it that holds a state."""
        self.views = _views(reuse, specs, offsets)
        """A tensor in it for each of the specs."""

    def touch(self) -> None:
        """Have the system give all of it now: who fills fresh memory waits five times as long."""
        self.used.numpy().fill(0)


@dataclass
class Snapshot:
    """A copy of the state, ready for the wire."""

    memory: Memory
    tree: object
    """The state without its tensors."""
    taken: Moment | None

    @property
    def buffer(self) -> torch.Tensor:
        """The bytes to send."""
        return self.memory.used

    @property
    def state(self) -> object:
        """The copied state; its tensors are in ``buffer``."""
        return unpack(self.tree, self.memory.views)

    @cached_property
    def header(self) -> bytes:
        """What tells how to read the bytes; made by who sends, while the training goes on."""
        specs = [[str(dtype).removeprefix("torch."), shape] for dtype, shape in self.memory.specs]
        fields = {"tree": self.tree, "tensors": specs, "bytes": self.buffer.numel()}
        return json.dumps({**fields, "taken": self.taken}).encode()


class Listing:
    """What a copy is made of: tensors, and a state's names and plain values."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        """Of the parts that are in it."""
        self._pairs: list[object] = []
        self._tensors: list[torch.Tensor] = []
        self._specs: list[Spec] = []

    def add(self, name: str, state: object) -> None:
        """Add a part of the state.

        Raises:
            ModelError: it holds something that cannot be sent.
        """
        packed = cast(dict[str, list[object]], pack({name: state}, self._tensors))
        self._pairs += packed["dict"]
        self._specs += _specs_of(self._tensors[len(self._specs) :])
        self.names.add(name)

    def memory(self) -> Memory:
        """Return memory for a copy; may be called by any thread."""
        return Memory(self._specs, _wants_pinned(self._tensors))

    def copy(self, reuse: Memory | None) -> Snapshot:
        """Copy what the tensors hold now."""
        memory = _copied(self._tensors, self._specs, reuse)
        return Snapshot(memory, {"dict": self._pairs}, None)


def take_snapshot(state: object, reuse: Memory | None, taken: Moment | None = None) -> Snapshot:
    """Copy ``state`` into one buffer; nothing else is done here, because the training waits.

    Args:
        state: nested dictionaries with tensors.
        reuse: memory of an earlier snapshot, or that was made for this one.
        taken: when; goes with it.

    Raises:
        ModelError: ``state`` holds something that cannot be sent.
    """
    tensors: list[torch.Tensor] = []
    tree = pack(state, tensors)
    return Snapshot(_copied(tensors, _specs_of(tensors), reuse), tree, taken)


def _copied(tensors: list[torch.Tensor], specs: list[Spec], reuse: Memory | None) -> Memory:
    memory = reuse
    if memory is None or memory.specs != specs:
        memory = Memory(specs, _wants_pinned(tensors), None if memory is None else memory.whole)
    pinned = memory.pinned
    if tensors:
        with torch.no_grad():
            # All at once: a call from Python for each tensor is felt where there are many.
            torch._foreach_copy_(memory.views, tensors, non_blocking=pinned)
    if pinned:
        torch.cuda.current_stream().synchronize()
    return memory


def _specs_of(tensors: list[torch.Tensor]) -> list[Spec]:
    return [(tensor.dtype, tensor.shape) for tensor in tensors]


def _wants_pinned(tensors: list[torch.Tensor]) -> bool:
    # Pinned memory takes a device's copies several times faster, and without a host wait each.
    return any(tensor.is_cuda for tensor in tensors)


def restore(header: bytes, buffer: torch.Tensor) -> object:
    """Return the state whose header and bytes these are; tensors are views of ``buffer``.

    Raises:
        TransferError: the header is malformed or does not fit the bytes.
    """
    try:
        fields = json.loads(header)
        specs = [(_dtype(name), tuple(map(int, shape))) for name, shape in fields["tensors"]]
        offsets, size = _offsets(specs)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TransferError(f"the header of a donor's state is malformed: {error}") from None
    if size != buffer.numel():
        raise TransferError(f"a donor sent {buffer.numel()} bytes for a state of {size}")
    return unpack(fields["tree"], _views(buffer, specs, offsets))


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise ValueError(f"{name} is no type of tensors")
    return found


def _offsets(specs: list[Spec]) -> tuple[list[int], int]:
    offsets, end = [], 0
    for dtype, shape in specs:
        offsets.append(end)
        end += -(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT
    return offsets, end


def _views(buffer: torch.Tensor, specs: list[Spec], offsets: list[int]) -> list[torch.Tensor]:
    return [
        buffer[offset : offset + prod(shape) * dtype.itemsize].view(dtype).view(shape)
        for offset, (dtype, shape) in zip(offsets, specs, strict=True)
    ]
