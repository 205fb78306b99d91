"""What a checkpoint holds: listed while a round's sum is under way, copied after it, loaded again.

A copy of a small state takes hardly longer than to ask everything for its ``state_dict()``. So that
is done ahead, where the training thread waits for mates, for what a round changes in place only.
"""

from collections.abc import Mapping
from typing import Final

import torch

from dssync.worker import sameness
from dssync.worker.checkpoint import Loaded
from dssync.worker.payload import Payload, Stateful
from dssync.worker.staging import Listing, Memory, Snapshot

RNG: Final = "dssync.rng"


def list_ahead(payload: Payload) -> Listing:
    """List what can be listed before a round is applied, for a copy after it.

    Raises:
        ModelError: something in it cannot be written without pickle.
    """
    listing = Listing()
    for name, each in payload.parts.items():
        state = lasting_state(each)
        if state is not None:
            listing.add(name, state)
    listing.add(RNG, {"cpu": torch.get_rng_state()})
    return listing


def list_all(payload: Payload, ahead: Listing | None = None) -> Listing:
    """List what a checkpoint holds; tensors are not copied.

    Args:
        payload: the state.
        ahead: what was listed of it before; the rest is added.

    Raises:
        ModelError: something in it cannot be written without pickle.
    """
    listing = list_ahead(payload) if ahead is None else ahead
    for name, each in payload.parts.items():
        if name not in listing.names:
            listing.add(name, each.state_dict())
    return listing


def stage(payload: Payload, reuse: Memory | None, ahead: Listing | None = None) -> Snapshot:
    """Copy what a checkpoint holds. This is all that the training waits for.

    Args:
        payload: the state.
        reuse: memory of an earlier copy.
        ahead: what was listed of it before.

    Raises:
        ModelError: the state cannot be written without pickle.
    """
    return list_all(payload, ahead).copy(reuse)


def lasting_state(each: Stateful) -> Mapping[str, object] | None:
    """Return a state of the very tensors that are trained; None where it may be computed.

    A round gives a parameter other memory (``tensor.data = …``), which a detached one does not
    follow, and hooks and methods of a script's own may return values of the moment. Modules and
    optimizers without such are asked for the tensors themselves.
    """
    if isinstance(each, torch.nn.Module) and all(map(_is_plain_module, each.modules())):
        return each.state_dict(keep_vars=True)
    if isinstance(each, torch.optim.Optimizer) and _is_plain_optimizer(each):
        return each.state_dict()
    return None


def _is_plain_module(module: torch.nn.Module) -> bool:
    own = vars(module)
    hooked = own.get("_state_dict_hooks") or own.get("_state_dict_pre_hooks")
    methods = ("state_dict", "_save_to_state_dict", "get_extra_state")
    return not hooked and not any(_is_replaced(module, torch.nn.Module, name) for name in methods)


def _is_plain_optimizer(optimizer: torch.optim.Optimizer) -> bool:
    own = vars(optimizer)
    before, after = "_optimizer_state_dict_pre_hooks", "_optimizer_state_dict_post_hooks"
    hooked = own.get(before) or own.get(after)
    return not hooked and not _is_replaced(optimizer, torch.optim.Optimizer, "state_dict")


def _is_replaced(thing: object, base: type, method: str) -> bool:
    return method in vars(thing) or getattr(type(thing), method) is not getattr(base, method)


def take_over(loaded: Loaded, payload: Payload) -> None:
    """Go on from a checkpoint.

    Raises:
        CheckpointError: it is of another script; nothing was changed.
    """
    state = dict(loaded.state)
    rng = state.pop(RNG)
    sameness.load(loaded, state, payload)
    torch.set_rng_state(rng["cpu"])
