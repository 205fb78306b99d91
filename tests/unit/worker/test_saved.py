"""What a checkpoint holds may be listed before a round is applied; it holds what came of it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dssync.worker.buckets import Buckets, averaged
from dssync.worker.moments import Moments
from dssync.worker.payload import Payload
from dssync.worker.saved import list_ahead, stage


def trained() -> Payload:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    return Payload(model, optimizer)


def average(payload: Payload) -> Callable[[], None]:
    """Stage a round in which values double; return what applies it."""
    buckets = Buckets(averaged(payload.model).tensors)
    both = buckets.joined(Moments(payload.optimizer).buckets())
    both.stage(2.0)
    return both.apply


def flat(value: Any) -> list[object]:
    if isinstance(value, torch.Tensor):
        return value.flatten().tolist()
    if isinstance(value, dict):
        return [value.keys(), *(each for item in value.values() for each in flat(item))]
    return [each for item in value for each in flat(item)] if isinstance(value, list) else [value]


def test_what_was_listed_before_a_round_is_copied_as_it_is_after() -> None:
    payload = trained()
    payload.register("mean", torch.optim.swa_utils.AveragedModel(payload.model))
    apply = average(payload)

    ahead = list_ahead(payload)
    apply()

    assert flat(stage(payload, None, ahead).state) == flat(stage(payload, None).state)
    assert ahead.names == {"model", "optimizer", "mean", "dssync.rng"}


class Doubled(torch.nn.Linear):
    """Saves another number than it trains."""

    def get_extra_state(self) -> object:
        return float(self.weight.detach().sum())

    def set_extra_state(self, state: object) -> None:
        pass


class Sum:
    """A script's own object, which is saved as the model is at that moment."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def state_dict(self) -> dict[str, object]:
        return {"sum": float(sum(each.detach().sum() for each in self.model.parameters()))}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


def with_own_object(payload: Payload) -> None:
    payload.register("sum", Sum(payload.model))


def with_module_hook(payload: Payload) -> None:
    def add(module: torch.nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
        state[f"{prefix}sum"] = module.weight.detach().sum()

    payload.model[0].register_state_dict_post_hook(add)  # type: ignore[index]


def with_optimizer_hook(payload: Payload) -> None:
    def copied(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
        kept = {key: dict(each) for key, each in state["state"].items()}
        for each in kept.values():
            each["exp_avg"] = each["exp_avg"].clone()
        return {**state, "state": kept}

    payload.optimizer.register_state_dict_post_hook(copied)


def with_extra_state(payload: Payload) -> None:
    payload.model.append(Doubled(4, 1))  # type: ignore[operator]


@pytest.mark.parametrize(
    "change", [with_own_object, with_module_hook, with_optimizer_hook, with_extra_state]
)
def test_what_may_be_computed_is_asked_for_after_the_round(
    change: Callable[[Payload], None],
) -> None:
    payload = trained()
    change(payload)
    apply = average(payload)

    ahead = list_ahead(payload)
    apply()

    saved = stage(payload, None, ahead).state
    assert isinstance(saved, dict)
    now = stage(payload, None).state
    assert isinstance(now, dict)
    assert {name: flat(each) for name, each in saved.items()} == {
        name: flat(each) for name, each in now.items()
    }
