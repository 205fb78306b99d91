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


def sum_of(module: torch.nn.Module) -> float:
    """Return what a round of `average` doubles."""
    return float(sum(each.detach().sum() for each in module.parameters()))


class Extra(torch.nn.Linear):
    """Saves a number beside what it trains."""

    def get_extra_state(self) -> object:
        return sum_of(self)

    def set_extra_state(self, state: object) -> None:
        pass


class Inner(torch.nn.Linear):
    """Does so in the method that torch's own modules have for it."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}sum"] = sum_of(self)


class Outer(torch.nn.Sequential):
    """Has a way of its own, and knows no options."""

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        return {"sum": sum_of(self)}


class Means(torch.optim.Adam):
    """An optimizer that saves copies."""

    def state_dict(self) -> dict[str, Any]:
        return copied(super().state_dict())


def copied(state: dict[str, Any]) -> dict[str, Any]:
    return {
        **state,
        "state": {k: {**v, "exp_avg": v["exp_avg"].clone()} for k, v in state["state"].items()},
    }


class Sum:
    """A script's own object, which is saved as the model is at that moment."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.model = model

    def state_dict(self) -> dict[str, object]:
        return {"sum": sum_of(self.model)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        pass


def own_object(payload: Payload) -> Payload:
    payload.register("sum", Sum(payload.model))
    return payload


def module_hook(payload: Payload) -> Payload:
    def add(module: torch.nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
        state[f"{prefix}sum"] = sum_of(module)

    next(payload.model.children()).register_state_dict_post_hook(add)
    return payload


def early_module_hook(payload: Payload) -> Payload:
    first = next(payload.model.children())
    first.register_buffer("sum", torch.zeros(()))

    def note(module: torch.nn.Module, prefix: str, keep_vars: bool) -> None:
        module.register_buffer("sum", torch.tensor(sum_of(module)))

    first.register_state_dict_pre_hook(note)
    return payload


def method_of_one_module(payload: Payload) -> Payload:
    model = payload.model
    model.state_dict = lambda: {"sum": sum_of(model)}  # type: ignore[assignment, misc]
    return payload


def own_module(kind: type[torch.nn.Module], *sizes: int) -> Callable[[Payload], Payload]:
    def add(payload: Payload) -> Payload:
        payload.model.append(kind(*sizes))  # type: ignore[operator]
        return payload

    return add


def own_model(payload: Payload) -> Payload:
    return Payload(Outer(*payload.model.children()), payload.optimizer)


def optimizer_hook(payload: Payload) -> Payload:
    payload.optimizer.register_state_dict_post_hook(lambda _, state: copied(state))
    return payload


def early_optimizer_hook(payload: Payload) -> Payload:
    def note(optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0]["sum"] = sum_of(payload.model)

    payload.optimizer.register_state_dict_pre_hook(note)
    return payload


def own_optimizer(payload: Payload) -> Payload:
    optimizer = Means(payload.model.parameters())
    optimizer.load_state_dict(payload.optimizer.state_dict())
    return Payload(payload.model, optimizer)


@pytest.mark.parametrize(
    "change",
    [
        own_object,
        module_hook,
        early_module_hook,
        method_of_one_module,
        own_module(Extra, 4, 1),
        own_module(Inner, 4, 1),
        own_model,
        optimizer_hook,
        early_optimizer_hook,
        own_optimizer,
    ],
)
def test_what_may_be_computed_is_asked_for_after_the_round(
    change: Callable[[Payload], Payload],
) -> None:
    payload = change(trained())
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
