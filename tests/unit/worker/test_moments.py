"""Of an optimizer's state, what follows each parameter's shape averages; counters stay local."""

from collections.abc import Callable

import pytest
import torch

from dssync.worker.buckets import MARKS, Buckets
from dssync.worker.moments import Moments
from dssync.worker.payload import Payload
from dssync.worker.staging import restore, take_snapshot

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


def plain() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(5, 3))


def channels_last() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(6, 4, 3, 2).to(memory_format=torch.channels_last))


def channels_last_3d() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(3, 2, 3, 3, 3).to(memory_format=torch.channels_last_3d))


def transposed() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(5, 3).t())


def apart() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(5, 6)[:, ::2])


def momentum(values: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(values, lr=0.1, momentum=0.9)


class Holder(torch.nn.Module):
    def __init__(self, value: torch.nn.Parameter) -> None:
        super().__init__()
        self.value, self.last = value, torch.nn.Parameter(torch.randn(2))


def member(value: Callable[[], torch.nn.Parameter], make: Make) -> Payload:
    model = Holder(value())
    return Payload(model, make(list(model.parameters())))


def train(payload: Payload) -> None:
    for parameter in payload.model.parameters():
        parameter.grad = torch.randn_like(parameter)
    payload.optimizer.step()


def numbers_of(payload: Payload) -> list[torch.Tensor]:
    states = payload.optimizer.state.values()
    return [v for state in states for k, v in sorted(state.items()) if k != "step"]


def average(*all_moments: Moments) -> None:
    """Flush, as members with equal weights do."""
    made = [moments.buckets() for moments in all_moments]
    for buckets in made:
        buckets.stage(1 / len(made))
    for pieces in zip(*(each.buckets() for each in made), strict=True):
        total = torch.stack(pieces).sum(0)
        for piece in pieces:
            piece.copy_(total)
    for buckets in made:
        buckets.apply()


@pytest.mark.parametrize("make", [adam, momentum])
@pytest.mark.parametrize("value", [plain, channels_last, channels_last_3d, transposed, apart])
def test_a_joiner_averages_with_those_that_trained(
    value: Callable[[], torch.nn.Parameter], make: Make
) -> None:
    veteran, joiner = member(value, make), member(value, make)
    train(veteran)
    snapshot = take_snapshot(veteran.state(), None)
    joiner.load(restore(snapshot.header, snapshot.buffer.clone()))
    of_veteran, of_joiner = Moments(veteran.optimizer), Moments(joiner.optimizer)
    want = [each.clone() for each in numbers_of(veteran)]
    assert of_veteran.layout == of_joiner.layout != ""

    for _ in range(2):
        average(of_veteran, of_joiner)

    torch.testing.assert_close(numbers_of(veteran), want)
    torch.testing.assert_close(numbers_of(joiner), want)


def test_a_gradient_in_another_order_makes_no_other_layout() -> None:
    one, other = member(plain, momentum), member(plain, momentum)
    for payload, order in ((one, False), (other, True)):
        for parameter in payload.model.parameters():
            value = torch.arange(float(parameter.numel())).reshape(parameter.shape)
            parameter.grad = value.t().contiguous().t() if order and value.dim() > 1 else value
        payload.optimizer.step()
    want = [each.clone() for each in numbers_of(one)]

    average(Moments(one.optimizer), Moments(other.optimizer))

    torch.testing.assert_close([numbers_of(one), numbers_of(other)], [want, want])


def test_parameters_in_another_order_are_another_layout() -> None:
    layouts = []
    for value in (transposed, lambda: torch.nn.Parameter(torch.randn(3, 5))):
        payload = member(value, momentum)
        step(payload.optimizer)
        layouts.append(Moments(payload.optimizer).layout)

    assert layouts[0] != layouts[1]


def test_the_layout_that_was_told_is_staged_whatever_the_parameters_are_meanwhile() -> None:
    one, other = member(channels_last, momentum), member(channels_last, momentum)
    train(one)
    other.optimizer.load_state_dict(one.optimizer.state_dict())
    both = [Moments(each.optimizer) for each in (one, other)]
    assert both[0].layout == both[1].layout
    want = [each.clone() for each in numbers_of(one)]

    moved = next(other.model.parameters())
    moved.data = moved.data.contiguous()
    average(*both)

    torch.testing.assert_close([numbers_of(one), numbers_of(other)], [want, want])
