"""Where a model keeps what is averaged, to notice in each round that it keeps others there.

``self.mean = 0.9 * self.mean + …`` in a forward pass, ``load_state_dict(…, assign=True)`` or a new
head put other tensors into a model. Those train from then on, and so it is those that average.
"""

from operator import is_
from typing import Any

import torch

from dssync.errors import ModelError
from dssync.worker.buckets import Averaged, Buckets, refuse_overlap, shape_of


class Places:
    """The places of a model's tensors.

    Args:
        model: whose they are.
        chosen: what of it is averaged.
    """

    def __init__(self, model: torch.nn.Module, chosen: Averaged) -> None:
        self._model = model
        self._averaged = dict(zip(chosen.names, chosen.tensors, strict=True))
        self._frozen = dict(chosen.frozen)
        self._note()

    def follow(self, buckets: Buckets) -> None:
        """Average what the model holds now.

        Raises:
            ModelError: it holds other kinds of tensors than before, or more to train.
        """
        # In each round: no step of Python for each tensor.
        if not all(map(is_, map(dict.get, self._holders, self._keys), self._held)):
            places = enumerate(zip(self._holders, self._keys, self._held, strict=True))
            changed = [n for n, (holder, key, held) in places if holder.get(key) is not held]
            if self._buffers.keys() >= set(changed):
                buckets.replace(self._follow_buffers(changed))
            else:
                buckets.replace(self._look_again())
        for name, parameter in self._frozen.items():
            if parameter.requires_grad:
                raise ModelError(
                    f"parameter {name!r} was frozen when training began and trains now: it would "
                    "not be averaged; unfreeze it before the first step, or train in two runs"
                )

    def _note(self) -> None:
        """Note what is at each place: modules, parameters and averaged buffers."""
        names = {id(tensor): name for name, tensor in self._averaged.items()}
        self._buffers: dict[int, str] = {}
        """Names of the averaged buffers, by their place."""
        self._holders: list[dict[str, Any]] = []
        self._keys: list[str] = []
        self._held: list[object] = []
        for module in self._model.modules():
            for holder in (module._modules, module._parameters, module._buffers):
                # The modules of torch.jit have something else, in which nothing is replaced.
                if not isinstance(holder, dict):
                    continue
                for key, held in holder.items():
                    if holder is module._buffers:
                        if id(held) not in names:
                            continue
                        self._buffers[len(self._held)] = names[id(held)]
                    self._holders.append(holder)
                    self._keys.append(key)
                    self._held.append(held)

    def _follow_buffers(self, places: list[int]) -> dict[int, torch.Tensor]:
        """Take buffers over that were replaced, as some are in every step."""
        replaced = {}
        for place in places:
            name, now = self._buffers[place], self._holders[place].get(self._keys[place])
            before = self._averaged[name]
            replaced[id(before)] = self._averaged[name] = _alike(name, before, now)
            self._held[place] = now
        return replaced

    def _look_again(self) -> dict[int, torch.Tensor]:
        """Take all tensors over from a model that was rebuilt."""
        parameters = dict(self._model.named_parameters(remove_duplicate=False))
        found = dict(self._model.named_buffers(remove_duplicate=False)) | parameters
        replaced = {}
        for name, before in self._averaged.items():
            replaced[id(before)] = self._averaged[name] = _alike(name, before, found.get(name))
        self._frozen = {name: parameters[name] for name in self._frozen if name in parameters}
        known = {*map(id, self._averaged.values()), *map(id, self._frozen.values())}
        for name, parameter in parameters.items():
            if parameter.requires_grad and id(parameter) not in known:
                raise ModelError(
                    f"parameter {name!r} came into the model after training began: it would not "
                    "be averaged; put it there before the first step, or train in two runs"
                )
        self._note()
        return replaced


def _alike(name: str, before: torch.Tensor, now: torch.Tensor | None) -> torch.Tensor:
    """Return a tensor that is averaged in the place of another one.

    Raises:
        ModelError: it is of another kind.
    """
    if now is None:
        raise ModelError(
            f"tensor {name!r} was averaged when training began and is no longer in the model: "
            "keep the model as it was at the first step, or train in two runs"
        )
    kinds = [f"{shape_of(each)} on {each.device}" for each in (before, now)]
    if kinds[0] != kinds[1]:
        raise ModelError(
            f"tensor {name!r} was {kinds[0]} when training began and is {kinds[1]} now: what is "
            "averaged keeps its type, shape and device"
        )
    refuse_overlap(name, now)
    return now
