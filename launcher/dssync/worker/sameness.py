"""Whether a checkpoint is one of this run: what a script compares before it goes on from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dssync.errors import CheckpointError
from dssync.worker.checkpoint import Loaded
from dssync.worker.payload import Payload
from dssync.worker.staging import take_snapshot

Groups = Sequence[Sequence[str]]
"""The names of an optimizer's parameters, by group: its state counts them in this order."""


def groups_of(payload: Payload) -> list[list[str]]:
    """Return the names of the parameters that an optimizer changes, by group, in order."""
    names = {id(each): name for name, each in payload.model.named_parameters()}
    groups = payload.optimizer.param_groups
    return [[names.get(id(each), "?") for each in group["params"]] for group in groups]


def load(loaded: Loaded, state: Mapping[str, Any], payload: Payload) -> None:
    """Load a checkpoint's states.

    Raises:
        CheckpointError: it is of another script; nothing was changed.
    """
    try:
        payload.check_fits(state)
        _check_groups(loaded.facts.optimizer, groups_of(payload))
        before = take_snapshot(payload.state(), None)
        options = [group.keys() - {"params"} for group in payload.optimizer.param_groups]
        try:
            payload.load(state)
            _check_options(options, payload.optimizer)
        except Exception:
            payload.load(before.state)
            raise
    except Exception as error:  # A script's own objects raise what they like.
        why = str(error) if isinstance(error, CheckpointError) else repr(error)
        raise CheckpointError(f"{loaded.folder.name} is of another script: {why}") from None


def _check_groups(there: Groups, here: Groups) -> None:
    # A checkpoint may be older than this list in it.
    if there and there != here:
        raise CheckpointError(f"its optimizer changes {there}, expected {here}")


def _check_options(expected: list[set[str]], optimizer: torch.optim.Optimizer) -> None:
    """See that nothing is missing that the optimizer needs in each step.

    Those of a state are taken as they are; an older release's are completed by the optimizer.
    """
    for number, (names, group) in enumerate(zip(expected, optimizer.param_groups, strict=True)):
        missing = sorted(names - group.keys())
        if missing:
            raise CheckpointError(
                f"group {number} of its optimizer has no {missing}, which "
                f"{type(optimizer).__name__} needs"
            )
