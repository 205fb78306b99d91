"""Whether a checkpoint is one of this run: what a script compares before it goes on from it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dssync.control.messages import Track, TrackState
from dssync.errors import CheckpointError
from dssync.worker.checkpoint import Loaded
from dssync.worker.data import Data
from dssync.worker.payload import Payload
from dssync.worker.staging import take_snapshot

Groups = Sequence[Sequence[str]]
"""The names of an optimizer's parameters, by group: its state counts them in this order."""


def groups_of(payload: Payload) -> list[list[str]]:
    """Return the names of the parameters that an optimizer changes, by group, in order."""
    names = {id(each): name for name, each in payload.model.named_parameters()}
    groups = payload.optimizer.param_groups
    return [[names.get(id(each), "?") for each in group["params"]] for group in groups]


def check_run(loaded: Loaded, data: Data | None, seed: int) -> None:
    """See that a checkpoint counts the batches that this run trains on.

    Args:
        loaded: the checkpoint.
        data: what this run is over; None: nobody has said so yet.
        seed: of this run.

    Raises:
        CheckpointError: a number means other samples here, so that some would be trained on twice
            and others never.
    """
    facts, ledger = loaded.facts, loaded.ledger
    if not ledger.tracks:
        return
    name, other = loaded.folder.name, "or another checkpoint path"
    if facts.seed != seed:
        raise CheckpointError(
            f"{name} is of a run with --seed {facts.seed}, which orders its samples, expected "
            f"{seed}: pass the same seed, {other}"
        )
    if data is None:
        return
    # A checkpoint may be older than the words in it.
    words = data.loaders if facts.data else _counted(data.tracks)
    there = [*(facts.data or _counted(ledger.tracks)), f"{ledger.epochs} epochs"]
    here = [*words, f"{data.epochs} epochs"]
    if there != here:
        raise CheckpointError(
            f"{name} is of a run over {'; '.join(there)}, expected {'; '.join(here)}: use the same "
            f"data set, batch size, shuffle and epochs, {other}"
        )


def _counted(tracks: Sequence[Track | TrackState]) -> list[str]:
    return [f"{each.name!r}: {each.batches_per_epoch} batches" for each in tracks]


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
