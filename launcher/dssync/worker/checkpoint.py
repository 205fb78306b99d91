"""A checkpoint on disk: a folder of tensors, and a manifest that vouches for every byte of it.

``PATH/checkpoint-000007`` holds ``model.safetensors`` (the model's ``state_dict``, loadable without
dssync), ``state.safetensors`` (all other tensors) and ``manifest.json`` (everything else, with the
length and SHA-256 of both files and of itself). A folder is written under another name, made
durable, and published by one rename; so whatever bears the name is whole, unless somebody has
touched it since, and that is found out. Nothing is pickled.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from dssync.control.codec import Codec
from dssync.control.messages import LedgerState
from dssync.errors import CheckpointError, DssyncError
from dssync.worker.tensorfile import write_files
from dssync.worker.tree import pack, unpack

FORMAT: Final = "dssync-checkpoint-1"
MODEL: Final = "model.safetensors"
STATE: Final = "state.safetensors"
MANIFEST: Final = "manifest.json"
PREFIX: Final = "checkpoint-"
SAVING: Final = ".saving-"
_LEDGER: Final = Codec([LedgerState])


@dataclass(frozen=True)
class Facts:
    """What a checkpoint is of."""

    kind: str
    """``consensus`` (the exact mean of all members) or ``member``."""
    term: int
    round: int
    seed: int
    """Of the schedule and of the data's order."""
    mode: str
    world_size: int
    view: int
    """Sequence of the view."""
    views: Sequence[Mapping[str, object]] = ()
    """The last views: term, sequence, members, and those whose values did not count."""
    optimizer: Sequence[Sequence[str]] = ()
    """Names of the parameters that it changes, by group."""
    data: Sequence[str] = ()
    """What makes up the batches of each loader, in words."""


@dataclass(frozen=True)
class Loaded:
    """A checkpoint that is whole."""

    folder: Path
    state: dict[str, Any]
    ledger: LedgerState
    facts: Facts


def write(folder: Path, state: Mapping[str, Any], ledger: LedgerState, facts: Facts) -> None:
    """Write a checkpoint into a folder that does not exist, and make it durable.

    Args:
        folder: where; its name is not yet the one that is published.
        state: states by name; that of ``model`` is a ``state_dict``.
        ledger: what of the data is in it.
        facts: what it is of.

    Raises:
        OSError: the disk does not take it.
        ModelError: the state cannot be written without pickle.
        CheckpointError: a tensor is of a type that no file can hold.
    """
    _make_parents(folder)
    folder.mkdir()
    model, rest = _split(state)
    others: list[torch.Tensor] = []
    tree = pack(rest, others)
    numbered = {str(number): tensor for number, tensor in enumerate(others)}
    listed = write_files(folder, {MODEL: model, STATE: numbered})
    content: dict[str, object] = {
        "format": FORMAT,
        "facts": dataclasses.asdict(facts),
        "ledger": _LEDGER.encode_text(ledger),
        "state": tree,
        "files": listed,
    }
    text = json.dumps({**content, "sha256": _digest(content)}, indent=1)
    with (folder / MANIFEST).open("x") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(folder)


def read(folder: Path) -> Loaded:
    """Read a checkpoint after a check of every byte.

    Raises:
        CheckpointError: it is not whole, or not one of ours; the message names file and reason.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        told = manifest.pop("sha256")
        if manifest["format"] != FORMAT or told != _digest(manifest):
            raise CheckpointError(f"{folder / MANIFEST} was altered, or is of another format")
        for name in (MODEL, STATE):
            _check_file(folder / name, manifest["files"][name])
        numbered = load_file(folder / STATE)
        others = [numbered[str(number)] for number in range(len(numbered))]
        rest = unpack(manifest["state"], others)
        ledger = _LEDGER.decode(manifest["ledger"])
        facts = Facts(**manifest["facts"])
        state = _joined(rest, load_file(folder / MODEL))
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: {error!r}") from None
    except (SafetensorError, DssyncError) as error:
        raise CheckpointError(f"{folder} is no whole checkpoint: {error}") from None
    return Loaded(folder, state, ledger, facts)


def newest(path: Path, refused: Callable[[CheckpointError], None]) -> Iterator[Loaded]:
    """Yield the whole checkpoints below a path, newest first; tell why others are refused."""
    for folder in reversed(published(path)):
        try:
            yield read(folder)
        except CheckpointError as error:
            refused(error)


def publish(folder: Path, path: Path) -> Path:
    """Give a written checkpoint its durable name.

    Raises:
        OSError: the disk does not take it.
    """
    while True:
        numbers = (int(each.name.removeprefix(PREFIX)) for each in published(path))
        number = 1 + max(numbers, default=0)
        target = path / f"{PREFIX}{number:06d}"
        try:
            folder.rename(target)
            break
        except OSError:
            if not target.exists():
                raise
    sync_folder(path)
    return target


def remove_old(path: Path, keep: int) -> None:
    """Remove all checkpoints but the newest ones, and what crashes left of others.

    What is younger than the newest one may be what another writer is about to publish.
    """
    found = published(path)
    since = _written_seconds(found[-1]) if found else 0.0
    left = [each for each in path.glob(f"{SAVING}*") if _written_seconds(each) < since]
    for old in [*found[:-keep], *left]:
        shutil.rmtree(old, ignore_errors=True)


def _written_seconds(folder: Path) -> float:
    """Return when something was last put into a folder; never, as it seems, if it is gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return math.inf


def published(path: Path) -> list[Path]:
    """Return the checkpoints below a path, whole or not, oldest first."""
    found = [each for each in path.glob(f"{PREFIX}*") if each.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda each: int(each.name.removeprefix(PREFIX)))


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _make_parents(folder: Path) -> None:
    """Make the folders above one that there are not yet, with durable names.

    A checkpoint in a folder whose own name is lost with the power is lost, too. Its own name
    becomes durable when it is published; before, nobody looks for it.
    """
    parent = folder.parent
    if not parent.is_dir():
        _make_parents(parent)
        with contextlib.suppress(FileExistsError):
            parent.mkdir()
        sync_folder(parent.parent)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the tensors of the model, and all else."""
    tensors = {k: v for k, v in state["model"].items() if isinstance(v, torch.Tensor)}
    extra = {k: v for k, v in state["model"].items() if k not in tensors}
    return tensors, {**state, "model": extra}


def _joined(rest: object, model: dict[str, torch.Tensor]) -> dict[str, Any]:
    if not isinstance(rest, dict):
        raise TypeError("the manifest's state is no dictionary")
    return {**rest, "model": {**model, **rest["model"]}}


def _describe(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check_file(path: Path, told: Mapping[str, object]) -> None:
    size = path.stat().st_size
    if size != told["bytes"]:
        raise CheckpointError(f"{path} has {size} bytes, expected {told['bytes']}: it is truncated")
    if _describe(path) != told:
        raise CheckpointError(f"{path} was altered: its SHA-256 is not that of the manifest")


def _digest(content: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
