"""Of an optimizer's state, what follows each parameter's shape averages; counters stay local."""

from collections.abc import Callable

import pytest
import torch

from dssync.worker.buckets import MARKS, Buckets
from dssync.worker.moments import Moments

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    torch.manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(2, 3)), torch.nn.Parameter(torch.randn(()))]


def step(optimizer: torch.optim.Optimizer) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()


def adam(values: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(values)


@pytest.mark.parametrize(
    ("make", "numbers"),
    [
        (adam, 2),
        (lambda values: torch.optim.SGD(values, momentum=0.9), 1),
        (lambda values: torch.optim.SGD(values), 0),
        (lambda values: torch.optim.RMSprop(values, centered=True), 2),
    ],
)
def test_each_number_that_is_kept_of_a_parameter_averages(make: Make, numbers: int) -> None:
    optimizer = make(parameters())
    moments = Moments(optimizer)
    step(optimizer)

    staged = moments.buckets()

    assert staged.size_bytes == 4 * numbers * 7
    assert bool(moments.layout) == (numbers > 0)


def test_the_mean_goes_back_into_the_optimizer_and_counters_do_not() -> None:
    optimizer = adam(parameters())
    step(optimizer)
    moments, first = Moments(optimizer), optimizer.param_groups[0]["params"][0]
    before = optimizer.state[first]["exp_avg"].clone()

    buckets = moments.buckets()
    buckets.stage(1.0)
    for piece in buckets.buckets():
        piece *= 3
    buckets.apply()

    assert torch.equal(optimizer.state[first]["exp_avg"], before * 3)
    assert all(state["step"] == 1 for state in optimizer.state.values())
    step(optimizer)
    expected = before * 3 * 0.9 + 0.1
    torch.testing.assert_close(optimizer.state[first]["exp_avg"], expected)


def test_members_with_the_same_state_have_the_same_layout() -> None:
    one, other, momentum = (
        adam(parameters(1)),
        adam(parameters(2)),
        torch.optim.SGD(parameters(1), momentum=0.9),
    )
    layouts = [Moments(each) for each in (one, other, momentum)]
    assert [each.layout for each in layouts] == ["", "", ""]
    for each in (one, other, momentum):
        step(each)

    found = [each.layout for each in layouts]

    assert found[0] == found[1] != found[2]


def test_tensors_that_a_donor_replaced_are_found_again() -> None:
    donor, joiner = adam(parameters(1)), adam(parameters(2))
    step(donor)
    moments = Moments(joiner)

    joiner.load_state_dict(donor.state_dict())

    assert moments.layout == Moments(donor).layout
    joined = Buckets([torch.zeros(4)]).joined(moments.buckets())
    joined.stage(1.0)
    assert [piece.numel() for piece in joined.buckets()] == [4 + MARKS, 14 + MARKS]


def test_a_state_of_as_many_parameters_that_holds_something_else_is_another_layout() -> None:
    mine, loaded = adam(parameters()), torch.optim.Adam(parameters(), amsgrad=True)
    for each in (mine, loaded):
        step(each)
    moments = Moments(mine)
    before = moments.layout

    mine.load_state_dict(loaded.state_dict())

    assert before == Moments(adam_after_a_step()).layout
    assert moments.layout == Moments(loaded).layout != before


def adam_after_a_step() -> torch.optim.Optimizer:
    optimizer = adam(parameters())
    step(optimizer)
    return optimizer
