"""Every way to feed the loop gives each sample once in each epoch."""

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from torch.utils.data import DataLoader

import dssync
from dssync.errors import UsageError

SIZE, BATCH, EPOCHS = 27, 4, 2
EXPECTED = Counter(dict.fromkeys(range(SIZE), EPOCHS))

Make = Callable[..., DataLoader[torch.Tensor]]


@pytest.fixture
def sync() -> Iterator[dssync.GroupSync]:
    model = torch.nn.Linear(2, 1)
    with dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=0.1)) as made:
        yield made


def by_batches(sync: dssync.GroupSync, **more: object) -> DataLoader[torch.Tensor]:
    sampler = sync.batches(range(SIZE), BATCH)
    return DataLoader(range(SIZE), batch_sampler=sampler, **more)  # type: ignore[arg-type]


def by_sampler(sync: dssync.GroupSync, **more: object) -> DataLoader[torch.Tensor]:
    sampler = sync.sampler(range(SIZE))
    return DataLoader(range(SIZE), BATCH, sampler=sampler, **more)  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
@pytest.mark.parametrize("make", [by_batches, by_sampler])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"num_workers": 1},
        {"num_workers": 2, "persistent_workers": True},
        {"num_workers": 4, "prefetch_factor": 3},
    ],
    ids=str,
)
def test_each_sample_comes_once_in_each_epoch(
    sync: dssync.GroupSync, make: Make, more: dict[str, object]
) -> None:
    sizes, seen = [], Counter[int]()
    for batch in sync.run(make(sync, **more), EPOCHS):
        sizes.append(len(batch))
        seen.update(batch.tolist())
        sync.step()

    assert seen == EXPECTED
    assert sizes == [4, 4, 4, 4, 4, 4, 3] * EPOCHS
    assert sync.progress == 1.0


def test_accumulated_gradients_commit_all_their_batches(sync: dssync.GroupSync) -> None:
    seen = Counter[int]()
    for number, batch in enumerate(sync.run(by_batches(sync), EPOCHS)):
        seen.update(batch.tolist())
        if number % 3 == 2:
            sync.step()

    assert seen == EXPECTED
    assert sync.progress == 1.0


def test_several_loaders_by_name_end_when_all_are_used_up(sync: dssync.GroupSync) -> None:
    short = DataLoader(range(5), batch_sampler=sync.batches(range(5), 2))
    seen: dict[str, Counter[int]] = {"short": Counter(), "long": Counter()}
    for found in sync.run({"short": short, "long": by_sampler(sync)}, EPOCHS):
        for name, batch in found.items():
            seen[name].update(batch.tolist())
        sync.step()

    assert seen == {"short": Counter(dict.fromkeys(range(5), EPOCHS)), "long": EXPECTED}


@pytest.mark.parametrize("samples", [SIZE, None])
def test_iterable_data_is_cut_into_batches(sync: dssync.GroupSync, samples: int | None) -> None:
    class Stream:
        def __iter__(self) -> Iterator[int]:
            yield from range(SIZE)

    seen = Counter[int]()
    for batch in sync.run(sync.shard(Stream(), BATCH, samples), EPOCHS):
        seen.update(batch.tolist())
        sync.step()

    assert seen == EXPECTED


def test_a_stream_that_ends_too_soon_is_refused(sync: dssync.GroupSync) -> None:
    stream = sync.shard(range(SIZE), BATCH, SIZE + 1)

    with pytest.raises(UsageError, match="found 27 samples where 28 were expected"):
        list(sync.run(stream))


def test_the_order_of_the_training_does_not_depend_on_the_loaders_seeds(
    sync: dssync.GroupSync,
) -> None:
    torch.manual_seed(5)
    for _ in sync.run(by_batches(sync)):
        drawn = torch.rand(1)
        break

    assert torch.equal(drawn, torch.rand(1, generator=torch.Generator().manual_seed(5)))


def test_who_was_away_trains_on_what_is_left(sync: dssync.GroupSync) -> None:
    seen = Counter[int]()
    for number, batch in enumerate(sync.run(by_batches(sync, num_workers=1), EPOCHS)):
        seen.update(batch.tolist())
        sync.step()
        if number == 3:
            with sync.away():
                pass

    assert seen == EXPECTED
    assert sync.progress == 1.0


def test_loaders_that_would_lose_or_reorder_samples_are_refused(sync: dssync.GroupSync) -> None:
    for loader, word in (
        (by_sampler(sync, drop_last=True), "drop_last"),
        (by_batches(sync, num_workers=1, in_order=False), "in_order"),
        (by_sampler(sync, num_workers=1, in_order=False), "in_order"),
        (DataLoader(range(3)), r"sync\.batches"),
        ({}, "0 loaders"),
    ):
        with pytest.raises(UsageError, match=word):
            next(sync.run(loader))
    shared = by_batches(sync)
    with pytest.raises(UsageError, match="two names"):
        next(sync.run({"a": shared, "b": shared}))
