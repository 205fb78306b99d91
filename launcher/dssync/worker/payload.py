"""What a joiner needs to become like its donor: model, optimizer and whatever was registered."""

from collections.abc import Mapping
from typing import Any, Protocol, cast

import torch

from dssync.errors import CheckpointError, TransferError, UsageError
from dssync.worker.buckets import shape_of
from dssync.worker.data import Data
from dssync.worker.tree import pack


class Stateful(Protocol):
    """Something with state: a scheduler, a scaler, an averaged model."""

    def state_dict(self) -> dict[str, object]:
        """Return the state."""

    def load_state_dict(self, state_dict: dict[str, object]) -> object:
        """Take a state over."""


class Payload:
    """The training state of one worker."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer
        self.data: Data | None = None
        """What it is trained on, once the script has said so."""
        self._stateful: dict[str, Stateful] = {
            "model": cast(Stateful, model),
            "optimizer": cast(Stateful, optimizer),
        }

    def register(self, name: str, stateful: Stateful) -> None:
        """Add something with state.

        Raises:
            UsageError: the name is taken.
        """
        if name in self._stateful:
            raise UsageError(f"register({name!r}): the name is taken; choose another")
        self._stateful[name] = stateful

    @property
    def parts(self) -> Mapping[str, Stateful]:
        """Everything with state, by its name."""
        return self._stateful

    def state(self) -> dict[str, object]:
        """Return the state of everything; tensors are not copied."""
        return {name: each.state_dict() for name, each in self._stateful.items()}

    def check(self) -> None:
        """See that the state can be sent.

        Raises:
            ModelError: something in it cannot; the message says where.
        """
        pack(self.state(), [])

    def check_fits(self, state: Mapping[str, Any]) -> None:
        """See that a checkpoint is one of this script, before anything is loaded.

        Raises:
            CheckpointError: it has other names, or another model.
        """
        if state.keys() != self._stateful.keys():
            raise CheckpointError(
                f"it holds the states {sorted(state)}, expected {sorted(self._stateful)}"
            )
        there, here = _shapes(state["model"]), _shapes(self.model.state_dict())
        for name in sorted({*there, *here}):
            if there.get(name) != here.get(name):
                raise CheckpointError(
                    f"tensor {name!r} is {there.get(name, 'missing')} in it, expected "
                    f"{here.get(name, 'none')}"
                )

    def load(self, state: object) -> None:
        """Take a donor's state over.

        Raises:
            TransferError: it is not the state of the same script.
        """
        if not isinstance(state, dict) or state.keys() != self._stateful.keys():
            raise TransferError(
                f"a donor sent the states {sorted(state) if isinstance(state, dict) else state!r}, "
                f"expected {sorted(self._stateful)}: register the same names in every worker"
            )
        for name, each in self._stateful.items():
            each.load_state_dict(state[name])


def _shapes(state: Mapping[str, Any]) -> dict[str, str]:
    return {k: shape_of(each) for k, each in state.items() if isinstance(each, torch.Tensor)}
