"""What an optimizer has gathered of each parameter (momentum, second moments), as it averages.

Stays local in training rounds unless the job asks for more, and is averaged at a flush. It exists
only after a first step, and a sum needs the same sizes everywhere: so each member tells the
coordinator what it has, by a digest, and the coordinator says in which rounds all members of a
group have the same. Counters of steps and whatever else has another shape than its parameter
stays local for good.

Values are summed as they lie in memory. What was loaded, from a donor or a checkpoint, lies in the
usual order, and what was trained lies as its parameter does (channels last, say): all of it is laid
as the parameters are before it is staged.
"""

import hashlib
from collections.abc import Iterator

import torch

from dssync.worker.buckets import HOST, Buckets, shape_of

COUNTER = "step"
"""Of torch's optimizers; a tensor, and of the shape of a parameter that is a single number."""


class Moments:
    """The averaged part of one optimizer's state.

    Args:
        optimizer: whose state it is.
        device: where it is staged.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, device: torch.device = HOST) -> None:
        self._optimizer = optimizer
        self._device = device
        self._seen: list[object] = []
        self._layout = ""
        self._strides: list[tuple[int, ...]] = []
        """Of the tensors of the layout."""

    @property
    def layout(self) -> str:
        """Digest of names, types, shapes and strides; empty while there is nothing to average.

        Made anew only when something looks different from before: that is asked in each round.
        """
        seen = self._look()
        if seen != self._seen:
            self._seen = seen
            found = list(self._found())
            self._strides = [_dense_strides(parameter) for _, _, parameter in found]
            lines = [
                f"{name} {shape_of(tensor)} {strides}"
                for (name, tensor, _), strides in zip(found, self._strides, strict=True)
            ]
            text = "\n".join(lines)
            self._layout = hashlib.sha256(text.encode()).hexdigest()[:16] if lines else ""
        return self._layout

    def _look(self) -> list[object]:
        """Return what the layout follows from; far cheaper than to make it."""
        states, groups = self._optimizer.state.values(), self._optimizer.param_groups
        return [len(group["params"]) for group in groups] + [
            (key, value.dtype, value.shape) if isinstance(value, torch.Tensor) else key
            for state in states
            for key, value in state.items()
        ]

    def buckets(self) -> Buckets:
        """Return the tensors, ready to be staged.

        Made anew for each round: whoever loads a state has other tensors afterwards.
        """
        tensors = [tensor for _, tensor, _ in self._found()]
        if self.layout:
            for tensor, strides in zip(tensors, self._strides, strict=True):
                _lay(tensor, strides)
        return Buckets(tensors, self._device)

    def _found(self) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Yield what averages: its name, itself and its parameter."""
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        for number, parameter in enumerate(parameters):
            state = self._optimizer.state.get(parameter, {})
            for key in sorted(map(str, state)):
                value = state[key]
                if key != COUNTER and _is_like(value, parameter):
                    yield f"{number}.{key}", value, parameter


def _is_like(value: object, parameter: torch.Tensor) -> bool:
    return (
        isinstance(value, torch.Tensor)
        and value.is_floating_point()
        and value.shape == parameter.shape
    )


def _dense_strides(parameter: torch.Tensor) -> tuple[int, ...]:
    """Return the strides of what an optimizer keeps of a parameter."""
    return torch.empty_like(parameter, device="meta").stride()


def _lay(tensor: torch.Tensor, strides: tuple[int, ...]) -> None:
    """Have a tensor lie in memory with these strides."""
    if tensor.stride() != strides:
        laid = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
        tensor.data = laid.copy_(tensor)
