"""Staging never touches what is trained on, and a commit is a swap."""

import math

import pytest
import torch

from dssync.errors import ModelError
from dssync.worker.buckets import Buckets, averaged


def tensors() -> list[torch.Tensor]:
    """One of each kind: native, wide, narrow, with odd strides, and a view of a larger one."""
    return [
        torch.arange(6.0).reshape(2, 3),
        torch.arange(4, dtype=torch.float64),
        torch.arange(4, dtype=torch.bfloat16),
        torch.arange(16.0).reshape(1, 2, 2, 4).to(memory_format=torch.channels_last),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.tensor(5.0),
    ]


def test_what_is_staged_is_what_comes_back() -> None:
    kept, values = tensors(), [t.clone() for t in tensors()]
    buckets = Buckets(kept)

    buckets.stage(0.5)
    for bucket in buckets.buckets():
        bucket *= 4  # as if four members had sent the same
    untouched = [torch.equal(a, b) for a, b in zip(kept, values, strict=True)]
    buckets.apply()

    assert all(untouched)
    for tensor, value in zip(kept, values, strict=True):
        assert torch.equal(tensor, value * 2)
        assert tensor.dtype == value.dtype
        assert tensor.stride() == value.stride()


def test_an_abandoned_operation_cannot_reach_the_next_attempt() -> None:
    tensor = torch.ones(3)
    buckets = Buckets([tensor])
    buckets.stage(1.0)
    abandoned = buckets.buckets()[0]

    buckets.renew()
    buckets.stage(1.0)
    abandoned.fill_(99.0)
    buckets.apply()

    assert tensor.tolist() == [1.0, 1.0, 1.0]


def test_a_weight_of_zero_hides_values_that_are_no_numbers() -> None:
    buckets = Buckets([torch.tensor([math.nan, math.inf])])

    buckets.stage(0.0)

    assert [bucket.tolist() for bucket in buckets.buckets()] == [[0.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_no_numbers_are_found(value: float) -> None:
    tensor = torch.zeros(1000)
    buckets = Buckets([torch.ones(3, dtype=torch.float64), tensor])
    buckets.stage(1.0)
    before = buckets.finite(buckets.total())

    tensor[777] = value
    buckets.stage(1.0)

    assert before
    assert not buckets.finite(buckets.total())


def test_large_finite_values_whose_sum_overflows_are_numbers() -> None:
    buckets = Buckets([torch.full((4,), 3e38)])

    buckets.stage(1.0)

    assert buckets.finite(buckets.total())


def test_tensors_that_the_script_replaced_are_followed() -> None:
    tensor = torch.zeros(2)
    buckets = Buckets([tensor])

    tensor.data = torch.tensor([1.0, 2.0])
    buckets.stage(1.0)

    assert buckets.buckets()[0].tolist()[:2] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("elements", "sizes"),
    [
        (4 << 20, [(16 << 20) + 8]),
        ((4 << 20) + 1, [16 << 20, 12]),
        (5 << 20, [16 << 20, (4 << 20) + 8]),
    ],
)
def test_a_bucket_holds_sixteen_megabytes_of_values_and_no_marks_go_alone(
    elements: int, sizes: list[int]
) -> None:
    buckets = Buckets([torch.zeros(elements), torch.zeros(7, dtype=torch.float64)])

    found = [bucket.numel() * bucket.element_size() for bucket in buckets.buckets()]

    assert found == [*sizes, 72]


def test_the_total_is_that_of_the_values_as_they_were_before_they_are_scaled() -> None:
    buckets = Buckets([torch.tensor([1.0, 2.0]), torch.tensor([4.0], dtype=torch.float64)])

    buckets.stage(0.5)
    counted = buckets.total()
    buckets.stage(0.0)

    assert (counted, buckets.total()) == (7.0, 0.0)


def summed(*parts: tuple[float, int]) -> Buckets:
    """Return what members sum that bring a weight into a round each."""
    made = [Buckets([torch.ones(3), torch.ones(2, dtype=torch.float64)]) for _ in parts]
    for buckets, (weight, number) in zip(made, parts, strict=True):
        buckets.stage(weight, number)
    for pieces in zip(*(each.buckets() for each in made), strict=True):
        pieces[0].copy_(torch.stack(pieces).sum(0))
    return made[0]


@pytest.mark.parametrize("size", [1, 2, 3, 64, 1000])
def test_a_sum_of_one_round_is_known_as_such(size: int) -> None:
    assert summed(*[(1 / size, 163)] * size).is_sum_of(163)


def test_who_has_no_weight_changes_nothing_of_that() -> None:
    assert summed((0.5, 163), (0.5, 163), (0.0, 9)).is_sum_of(163)


@pytest.mark.parametrize("size", [2, 3, 64])
@pytest.mark.parametrize("off", [-1, 1, 3])
def test_a_sum_in_which_one_member_is_in_another_round_is_found(size: int, off: int) -> None:
    parts = [(1 / size, 163)] * (size - 1)

    buckets = summed(*parts, (1 / size, 163 + off))

    assert not buckets.is_sum_of(163)
    assert not buckets.is_sum_of(163 + off)


def test_a_sum_of_weights_of_two_views_is_found() -> None:
    assert not summed((1 / 3, 163), (1 / 3, 163), (1 / 2, 163)).is_sum_of(163)


def test_marks_stay_through_the_stages_of_a_flush() -> None:
    buckets = summed((0.5, 163), (0.5, 163))

    buckets.scale(1.0)

    assert buckets.is_sum_of(163)


def test_trained_parameters_and_float_buffers_are_averaged_once() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model.shared = model[0].weight
    model[0].bias.requires_grad_(False)

    chosen = averaged(model)

    assert chosen.lines == (
        "shared float32 (2, 2)",
        "1.weight float32 (2,)",
        "1.bias float32 (2,)",
        "1.running_mean float32 (2,)",
        "1.running_var float32 (2,)",
    )
    assert [name for name, _ in chosen.frozen] == ["0.bias"]


def test_how_a_tensor_lies_in_memory_is_told_where_it_is_not_the_usual_way() -> None:
    # Values are summed as they lie: those of members whose tensors lie otherwise would be mixed up.
    model = torch.nn.Conv2d(4, 6, 3)
    usual = averaged(model).lines
    model.to(memory_format=torch.channels_last)

    assert usual == ("weight float32 (6, 4, 3, 3)", "bias float32 (6,)")
    assert averaged(model).lines == (
        "weight float32 (6, 4, 3, 3) strides (36, 1, 12, 4)",
        "bias float32 (6,)",
    )


def test_a_mask_with_infinities_stays_local() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    model.register_buffer("mask", torch.tensor([0.0, -torch.inf]))

    chosen = averaged(model)

    assert chosen.names == ("weight",)


@pytest.mark.parametrize(
    "value", [torch.ones(1).expand(4), torch.ones(2, 1).expand(2, 3), torch.ones(5).unfold(0, 3, 1)]
)
def test_a_tensor_whose_elements_share_memory_is_refused(value: torch.Tensor) -> None:
    model = torch.nn.Linear(1, 1)
    model.register_buffer("wide", value)

    with pytest.raises(ModelError, match=r"'wide'.*share memory.*contiguous"):
        averaged(model)


@pytest.mark.parametrize(
    "value", [torch.ones(1).expand(1), torch.ones(4, 6)[::2, ::3], torch.ones(0, 3), torch.ones(())]
)
def test_a_tensor_with_gaps_is_averaged(value: torch.Tensor) -> None:
    model = torch.nn.Linear(1, 1)
    model.register_buffer("kept", value)

    assert "kept" in averaged(model).names


class DistributedDataParallel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = torch.nn.Linear(1, 1)


class FullyShardedDataParallel(DistributedDataParallel):
    pass


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (DistributedDataParallel(), "DistributedDataParallel.*bare module"),
        (FullyShardedDataParallel(), "FullyShardedDataParallel.*bare module"),
        (torch.nn.Linear(1, 1, dtype=torch.complex64), "real floats"),
        (torch.nn.Linear(1, 1).requires_grad_(False), "nothing to sync"),
    ],
)
def test_models_that_cannot_be_averaged_are_refused(model: torch.nn.Module, word: str) -> None:
    with pytest.raises(ModelError, match=word):
        averaged(model)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_parameters_are_refused() -> None:
    with pytest.raises(ModelError, match="UninitializedParameter"):
        averaged(torch.nn.LazyLinear(1))
