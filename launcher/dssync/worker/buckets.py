"""The averaged tensors as flat vectors, staged for the wire and swapped in on commit.

An abandoned operation may write to its buffer at any time later, so what is sent is never what
is trained on. Tensors of one type live as views of a flat vector; staging is one pass that scales
the vector into a second one, and applying a result only points the tensors at the second vector.
Tensors that travel in another type (bf16 as fp32), have odd strides or live on another device
than what carries the sums (a GPU under gloo) are copied there and back instead.

Behind the values travel two marks: whose weights are in the sum, and of which round. While nobody
leads, members may know different views, and what they sum then must count at nobody.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from dssync.errors import ModelError

BUCKET_BYTES = 16 << 20
"""Measured: 8 to 32 MB per all-reduce is best on gloo."""

MARKS = 2
MARKED_ROUNDS = 64
"""Rounds that marks tell apart: few, so that many weighted marks still sum exactly enough."""
MARK_TOLERANCE = 0.004
"""Far above what rounding does to the sum of the marks of 1,000 members."""

HOST = torch.device("cpu")

UNAVERAGED = ("DTensor", "UninitializedParameter")
"""Types of parameters that are no whole tensors."""


@dataclass(frozen=True)
class Kind:
    """How a tensor is staged."""

    dtype: torch.dtype
    device: torch.device
    native: bool
    """It can live in the flat vector."""
    pinned: bool
    """It comes from a GPU to the host, for which pinned memory is several times faster."""

    @classmethod
    def of(cls, tensor: torch.Tensor, device: torch.device) -> "Kind":
        """Return how a tensor is staged on a device."""
        dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
        dense = tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last)
        native = tensor.dtype == dtype and tensor.device == device and dense
        return cls(dtype, device, native, device.type == "cpu" and tensor.device.type == "cuda")


class Arena:
    """Tensors that share one way to be staged."""

    def __init__(self, tensors: Sequence[torch.Tensor], kind: "Kind") -> None:
        self._tensors = tensors
        self._native = kind.native
        self._sizes = [tensor.numel() for tensor in tensors]
        self._count = sum(self._sizes)
        self._kind = kind
        self._live = self._vector()
        self._staging = self._vector()
        self._live_views = self._views(self._live)
        self._staging_views = self._views(self._staging)
        self._sum = self._live.new_zeros(())
        self._live_pieces, self.pieces = _cut(self._live), _cut(self._staging)
        """Of the two vectors, as they are summed; those of the staging vector are used."""
        if kind.native:
            self._settle()

    @property
    def staging(self) -> torch.Tensor:
        """The values in the flat vector that goes over the wire."""
        return self._staging[: self._count]

    def stage(self, weight: float, number: int) -> None:
        """Fill the staging vector with the current values and marks times ``weight``."""
        if weight == 0.0:
            # 0 x NaN is NaN, so a value that must not count is not multiplied.
            self._staging.zero_()
            self._sum.zero_()
            return
        if self._native:
            self._settle()
        else:
            for view, tensor in zip(self._live_views, self._tensors, strict=True):
                view.copy_(tensor.detach(), non_blocking=self._kind.pinned)
            if self._kind.pinned:
                torch.cuda.current_stream().synchronize()
        # Before it is scaled: the sum is what brings the values into the cache. Measured at 16 MB,
        # 1.1 ms in this order and 1.5 ms in the other one.
        self._sum = self._live[: self._count].sum()
        self._live[-2].fill_(1.0)
        self._live[-1].fill_(number % MARKED_ROUNDS)
        torch.mul(self._live, weight, out=self._staging)

    @property
    def total(self) -> float:
        """The sum of the values that were staged last, before they were scaled."""
        return float(self._sum)

    def scale(self, weight: float) -> None:
        """Multiply what is staged."""
        if weight == 0.0:
            self._staging.zero_()
        else:
            self._staging.mul_(weight)

    def is_of(self, number: int) -> bool:
        """Tell whether the sum is one of a round, with weights that make 1."""
        weights, mark = self._staging[-MARKS:].tolist()
        off = max(abs(weights - 1.0), abs(mark - number % MARKED_ROUNDS))
        return bool(off < MARK_TOLERANCE)

    def replace(self, replaced: Mapping[int, torch.Tensor]) -> None:
        """Average other tensors of the same kind, found by the ``id`` of the earlier ones."""
        self._tensors = [replaced.get(id(tensor), tensor) for tensor in self._tensors]

    @property
    def size_bytes(self) -> int:
        """Bytes of values in one round."""
        return self._count * self._staging.element_size()

    def apply(self) -> None:
        """Make the staging vector the current values."""
        self._live, self._staging = self._staging, self._live
        self._live_views, self._staging_views = self._staging_views, self._live_views
        self._live_pieces, self.pieces = self.pieces, self._live_pieces
        for tensor, view in zip(self._tensors, self._live_views, strict=True):
            if self._native:
                tensor.data = view
            else:
                tensor.data.copy_(view)

    def renew(self) -> None:
        """Leave the staging vector to an abandoned operation and take a fresh one."""
        self._staging = self._vector()
        self._staging_views = self._views(self._staging)
        self.pieces = _cut(self._staging)

    def _vector(self) -> torch.Tensor:
        kind = self._kind
        return torch.empty(
            self._count + MARKS, dtype=kind.dtype, device=kind.device, pin_memory=kind.pinned
        )

    def _settle(self) -> None:
        """Bring tensors that were pointed elsewhere (``p.data = …``) back into the vector."""
        for tensor, view in zip(self._tensors, self._live_views, strict=True):
            if tensor.data_ptr() != view.data_ptr():
                view.copy_(tensor.detach())
                tensor.data = view

    def _views(self, flat: torch.Tensor) -> list[torch.Tensor]:
        offsets = [sum(self._sizes[:i]) for i in range(len(self._sizes))]
        if not self._native:
            return [
                flat[o : o + n].view(t.shape)
                for o, n, t in zip(offsets, self._sizes, self._tensors, strict=True)
            ]
        return [
            flat.as_strided(tensor.size(), tensor.stride(), offset)
            for offset, tensor in zip(offsets, self._tensors, strict=True)
        ]


def _cut(flat: torch.Tensor) -> list[torch.Tensor]:
    step = BUCKET_BYTES // flat.element_size()
    # The marks go with the last values, not in a sum of their own.
    starts = range(0, max(1, flat.numel() - MARKS), step)
    return [*(flat[start : start + step] for start in starts[:-1]), flat[starts[-1] :]]


@dataclass(frozen=True)
class Averaged:
    """What of a model is averaged."""

    names: tuple[str, ...]
    tensors: tuple[torch.Tensor, ...]
    frozen: tuple[tuple[str, torch.nn.Parameter], ...]
    """Parameters that do not train, and so stay equal without being sent."""

    @property
    def lines(self) -> tuple[str, ...]:
        """One line ``name dtype shape`` for each tensor, with its strides if they are unusual."""
        return tuple(
            f"{name} {shape_of(tensor)}{_unusual_strides(tensor)}"
            for name, tensor in zip(self.names, self.tensors, strict=True)
        )


def shape_of(tensor: torch.Tensor) -> str:
    """Return ``dtype shape``, as models are compared."""
    return f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def _unusual_strides(tensor: torch.Tensor) -> str:
    # Values are summed as they lie in memory, so they have to lie alike at all members.
    return "" if tensor.is_contiguous() else f" strides {tensor.stride()}"


def averaged(model: torch.nn.Module) -> Averaged:
    """Collect the trained parameters and the floating-point buffers of a model.

    Shared parameters count once. Integer buffers (counters) stay local, and so do buffers that
    hold an infinity before the first round: attention masks, which are constants and would make
    each round look like one with broken parameters.

    Raises:
        ModelError: the model is wrapped by DDP or FSDP, holds distributed, complex, lazy or
            expanded tensors, or has nothing to train.
    """
    refuse_wrapped(model)
    parameters = list(model.named_parameters())
    frozen = tuple((name, p) for name, p in parameters if not p.requires_grad)
    trained = [(name, p) for name, p in parameters if p.requires_grad]
    if not trained:
        raise ModelError("the model has no parameter with requires_grad: there is nothing to sync")
    buffers = [(name, b) for name, b in model.named_buffers() if b.is_floating_point()]
    floats = [(name, b) for name, b in buffers if not torch.isinf(b).any()]
    chosen: list[tuple[str, torch.Tensor]] = [*trained, *floats]
    for name, tensor in chosen:
        if not tensor.is_floating_point():
            raise ModelError(f"tensor {name!r} has type {tensor.dtype}: only real floats average")
        refuse_overlap(name, tensor)
    names, tensors = zip(*chosen, strict=True)
    return Averaged(tuple(names), tuple(tensors), frozen)


def refuse_overlap(name: str, tensor: torch.Tensor) -> None:
    """Refuse a tensor with several elements in one place in memory: a mean cannot be written there.

    Raises:
        ModelError: with its name.
    """
    extent = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride < extent:
            raise ModelError(
                f"tensor {name!r} has elements that share memory (expand() makes such): make it "
                "whole with contiguous()"
            )
        extent += (size - 1) * stride


def refuse_wrapped(model: torch.nn.Module) -> None:
    """Refuse models that already synchronise themselves.

    Raises:
        ModelError: with the wrapper's name and what to pass instead.
    """
    for module in model.modules():
        name = type(module).__name__
        if name in ("DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"):
            raise ModelError(
                f"the model is wrapped in {name}, which synchronises with everybody: "
                "pass the bare module to GroupSync"
            )
    for parameter_name, parameter in model.named_parameters():
        kinds = (type(parameter).__name__, type(parameter.data).__name__)
        kind = next((each for each in kinds if each in UNAVERAGED), None)
        if kind is not None:
            raise ModelError(
                f"parameter {parameter_name!r} is a {kind}: GroupSync averages whole, initialised "
                "tensors; pass a model that is neither sharded nor lazy"
            )


class Buckets:
    """All averaged tensors, staged together.

    Args:
        tensors: what is averaged.
        device: where it is staged.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], device: torch.device = HOST) -> None:
        by_kind: dict[Kind, list[torch.Tensor]] = {}
        for tensor in tensors:
            by_kind.setdefault(Kind.of(tensor, device), []).append(tensor)
        self._arenas = [Arena(each, kind) for kind, each in by_kind.items()]

    def joined(self, other: "Buckets") -> "Buckets":
        """Return both as one, for a round that averages them together."""
        both = Buckets((), HOST)
        both._arenas = [*self._arenas, *other._arenas]
        return both

    @property
    def size_bytes(self) -> int:
        """Bytes of one round."""
        return sum(arena.size_bytes for arena in self._arenas)

    def replace(self, replaced: Mapping[int, torch.Tensor]) -> None:
        """Average other tensors of the same kind, found by the ``id`` of the earlier ones."""
        for arena in self._arenas:
            arena.replace(replaced)

    def stage(self, weight: float, number: int = 0) -> None:
        """Fill the staging vectors with the current values times ``weight``, for a round."""
        for arena in self._arenas:
            arena.stage(weight, number)

    def scale(self, weight: float) -> None:
        """Multiply what is staged: the next stage of a flush."""
        for arena in self._arenas:
            arena.scale(weight)

    def is_sum_of(self, number: int) -> bool:
        """Tell whether what was summed is of one round at all members, and a mean."""
        return all(arena.is_of(number) for arena in self._arenas)

    def total(self) -> float:
        """Return the sum of the values that were staged last; those of weight 0 are 0."""
        return sum(arena.total for arena in self._arenas)

    def finite(self, total: float) -> bool:
        """Tell whether what is staged holds neither NaN nor Inf.

        Args:
            total: its sum; only if that is not finite is every element looked at.
        """
        return math.isfinite(total) or all(
            bool(torch.isfinite(arena.staging).all()) for arena in self._arenas
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the current values, in bucket order; leaves them staged."""
        self.stage(1.0)
        found = hashlib.sha256()
        for arena in self._arenas:
            found.update(arena.staging.cpu().numpy().data)
        return found.hexdigest()

    def buckets(self) -> list[torch.Tensor]:
        """Return the pieces of the staging vectors, one per all-reduce."""
        return [piece for arena in self._arenas for piece in arena.pieces]

    def apply(self) -> None:
        """Make what is staged the current values."""
        for arena in self._arenas:
            arena.apply()

    def renew(self) -> None:
        """Stage into fresh memory from now on."""
        for arena in self._arenas:
            arena.renew()
