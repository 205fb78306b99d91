"""A model that puts other tensors into its places is followed, or refused by name."""

from collections.abc import Callable

import pytest
import torch

from dssync.errors import ModelError
from dssync.worker.buckets import Buckets, averaged
from dssync.worker.places import Places

Change = Callable[[torch.nn.Module], object]


class Model(torch.nn.Module):
    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.body, self.head = torch.nn.Linear(2, 2), torch.nn.Linear(2, 3, dtype=dtype)
        self.body.bias.requires_grad_(False)
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        found = self.body(inputs)
        self.mean = 0.9 * self.mean + 0.1 * found.mean(0)
        self.steps = self.steps + 1
        return self.head(found)


def followed(model: torch.nn.Module) -> tuple[Places, Buckets]:
    chosen = averaged(model)
    return Places(model, chosen), Buckets(chosen.tensors)


def halve(places: Places, buckets: Buckets) -> None:
    """Do what a round does with the mean of this member and one whose values are all 0."""
    places.follow(buckets)
    buckets.stage(0.5)
    buckets.apply()


def test_a_buffer_that_each_forward_pass_replaces_is_averaged() -> None:
    model = Model()
    places, buckets = followed(model)
    for number in range(3):
        model(torch.ones(3, 2))
        before = model.mean.detach().clone()

        halve(places, buckets)

        torch.testing.assert_close(model.mean.detach(), before / 2)
        assert model.steps == number + 1


def assign(model: torch.nn.Module) -> None:
    values = {
        name: torch.randn_like(value)
        for name, value in model.state_dict().items()
        if value.is_floating_point()
    }
    model.load_state_dict(values, strict=False, assign=True)


def replace_head(model: torch.nn.Module) -> None:
    model.head = torch.nn.Linear(2, 3, dtype=model.head.weight.dtype)


def transpose(model: torch.nn.Module) -> None:
    model.head.weight = torch.nn.Parameter(model.head.weight.detach().t().contiguous().t())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [assign, replace_head, transpose])
def test_parameters_that_were_replaced_are_averaged(change: Change, dtype: torch.dtype) -> None:
    model = Model(dtype)
    places, buckets = followed(model)
    halve(places, buckets)

    change(model)
    before = [each.detach().clone() for each in averaged(model).tensors]
    frozen = model.body.bias.clone()
    for _ in range(2):
        halve(places, buckets)

    after = [each.detach() for each in averaged(model).tensors]
    torch.testing.assert_close(after, [each / 4 for each in before])
    assert torch.equal(model.body.bias, frozen)


def set_head(head: torch.nn.Module) -> Change:
    return lambda model: setattr(model, "head", head)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_head(torch.nn.Linear(2, 4)), r"'head.weight' was float32 \(3, 2\).*is float32 \(4, 2"),
        (set_head(torch.nn.Linear(2, 3).double()), "'head.weight' was float32.*is float64"),
        (set_head(torch.nn.Linear(2, 3, device="meta")), "'head.weight'.* on cpu .* on meta"),
        (set_head(torch.nn.Identity()), "'head.weight' .* no longer in the model"),
        (set_head(torch.nn.ModuleList([torch.nn.Linear(2, 3)])), "'head.weight' .* no longer"),
        (lambda model: setattr(model, "mean", torch.ones(1).expand(2)), "'mean'.*share memory"),
        (lambda model: setattr(model, "body", torch.nn.Linear(2, 2)), "'body.bias' was frozen"),
        (
            lambda model: setattr(
                model, "head", torch.nn.utils.parametrizations.weight_norm(model.head)
            ),
            "'head.weight'.* no longer in the model",
        ),
    ],
)
def test_a_model_that_became_another_is_refused(change: Change, words: str) -> None:
    model = Model()
    places, buckets = followed(model)

    change(model)

    with pytest.raises(ModelError, match=words):
        places.follow(buckets)


def test_one_of_two_names_of_a_parameter_that_gets_another_is_refused() -> None:
    model = Model()
    model.again = model.head
    places, buckets = followed(model)

    model.again = torch.nn.Linear(2, 3)

    with pytest.raises(ModelError, match=r"'again\.weight' came into the model"):
        places.follow(buckets)


def test_a_parameter_that_was_frozen_and_trains_is_refused() -> None:
    model = Model()
    places, buckets = followed(model)
    places.follow(buckets)

    model.body.bias.requires_grad_(True)

    with pytest.raises(ModelError, match=r"'body\.bias' was frozen"):
        places.follow(buckets)
