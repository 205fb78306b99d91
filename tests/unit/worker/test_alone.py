"""A script under plain ``python`` is a world of one and trains as it would without dssync."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader

import dssync
from dssync.errors import ModelError, UsageError


def parts() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(2, 1)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def loader_of(sync: dssync.GroupSync, size: int, batch_size: int = 4, **more: object) -> DataLoader:
    dataset = range(size)
    sampler = sync.batches(dataset, batch_size)
    return DataLoader(dataset, batch_sampler=sampler, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("every", [1, 3])
def test_each_sample_comes_once_in_each_epoch(every: int) -> None:
    with dssync.GroupSync(*parts(), every=every) as sync:
        seen = []
        for batch in sync.run(loader_of(sync, size=30), epochs=2):
            seen += batch.tolist()
            sync.step()

        assert sorted(seen) == sorted([*range(30), *range(30)])
        assert seen != sorted(seen)
        assert sync.progress > 0.8
        assert sync.is_first
        assert sync.world_size == 1


def test_values_are_those_of_plain_training() -> None:
    torch.manual_seed(0)
    model, optimizer = parts()
    plain = torch.nn.Linear(2, 1)
    plain.load_state_dict(model.state_dict())
    with dssync.GroupSync(model, optimizer) as sync:
        for batch in sync.run(loader_of(sync, size=8)):
            for parameter in (*model.parameters(), *plain.parameters()):
                parameter.data += batch.sum()
            sync.step()

    assert torch.equal(model.weight, plain.weight)


def test_rounds_are_told() -> None:
    with dssync.GroupSync(*parts()) as sync:
        told: list[dssync.Outcome] = []
        sync.on_round(told.append)
        for _ in sync.run(loader_of(sync, size=8)):
            sync.step()

        assert [outcome.result for outcome in told] == ["solo"] * 3
        assert [outcome.kind for outcome in told] == ["train", "train", "final"]
        assert told[0].members == (sync.member,)
        assert sync.last_round == told[-1]


def test_stop_ends_early() -> None:
    with dssync.GroupSync(*parts()) as sync:
        steps = 0
        for _ in sync.run(loader_of(sync, size=400)):
            steps += 1
            if steps == 5:
                sync.stop()
            sync.step()

        assert steps < 10


def test_a_loop_that_was_interrupted_can_be_run_again() -> None:
    with dssync.GroupSync(*parts()) as sync:
        seen: list[int] = []
        for batch in sync.run(loader_of(sync, size=40)):
            seen += batch.tolist()
            sync.step()
            if len(seen) == 12:
                break
        again = [(batch.tolist(), sync.step()) for batch in sync.run(loader_of(sync, size=40))]

        assert sorted(seen + [i for batch, _ in again for i in batch]) == list(range(40))


def test_an_interrupt_inside_a_round_leaves_and_the_next_run_comes_back() -> None:
    with dssync.GroupSync(*parts()) as sync:
        left: list[list[int]] = []
        sync.on_round(lambda outcome: interrupt() if outcome.round == 3 else None)

        def interrupt() -> None:
            raise KeyboardInterrupt

        def train() -> None:
            for batch in sync.run(loader_of(sync, size=40)):
                left.append(batch.tolist())
                sync.step()

        with pytest.raises(KeyboardInterrupt):
            train()
        before = len(left)
        train()

        assert before == 4
        assert sorted(sample for batch in left for sample in batch) == list(range(40))


def test_a_prefetching_loader_is_fine() -> None:
    with dssync.GroupSync(*parts()) as sync:
        seen = []
        for batch in sync.run(loader_of(sync, size=30, num_workers=1, prefetch_factor=4)):
            seen += batch.tolist()
            sync.step()

        assert sorted(seen) == list(range(30))


def test_batches_without_a_step_after_them_do_not_hold_the_end_up() -> None:
    with dssync.GroupSync(*parts()) as sync:
        for number, _ in enumerate(sync.run(loader_of(sync, size=44))):
            if number % 3 == 2:
                sync.step()

        assert number == 10
        assert sync.last_round is not None
        assert sync.last_round.kind == "final"


def test_a_step_scheduler_alone_needs_no_warning() -> None:
    model, optimizer = parts()
    with warnings.catch_warnings(), dssync.GroupSync(model, optimizer) as sync:
        warnings.simplefilter("error")
        sync.register("rate", torch.optim.lr_scheduler.StepLR(optimizer, 2))


def test_calls_that_cannot_work_say_so() -> None:
    model, optimizer = parts()
    with pytest.raises(UsageError, match="every=0"):
        dssync.GroupSync(model, optimizer, every=0)
    with pytest.raises(UsageError, match="group size 1"):
        dssync.GroupSync(model, optimizer, group_size=1)
    with pytest.raises(UsageError, match="rings"):
        dssync.GroupSync(model, optimizer, mode="rings")
    with pytest.raises(UsageError, match="one of grid, pool, cross, allreduce"):
        dssync.GroupSync(model, optimizer, mode="stream")
    with dssync.GroupSync(model, optimizer) as sync:
        loader = loader_of(sync, size=4)
        with pytest.raises(UsageError, match="name is taken"):
            sync.register("model", optimizer)
        with pytest.raises(UsageError, match="epochs=0"):
            next(iter(sync.run(loader, epochs=0)))
        with pytest.raises(UsageError, match="length"):
            sync.batches(iter([1]), 4)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="batch_size 0"):
            sync.batches(range(4), 0)
        with pytest.raises(UsageError, match=r"sync\.batches"):
            next(iter(sync.run(DataLoader(range(4), batch_size=2, drop_last=True))))
        with pytest.raises(UsageError, match="in_order"):
            next(iter(sync.run(loader_of(sync, 8, num_workers=1, in_order=False))))
        next(iter(sync.run(loader)))
        with pytest.raises(UsageError, match="training began"):
            sync.register("late", optimizer)


def test_a_forgotten_step_is_noticed() -> None:
    with dssync.GroupSync(*parts()) as sync, pytest.raises(UsageError, match=r"step\(\) was never"):
        for _ in sync.run(loader_of(sync, size=100)):
            pass


class Rate(float):
    """A number that is no plain one, as numpy's are."""


def test_a_state_that_cannot_be_sent_is_said_once() -> None:
    model, optimizer = parts()
    optimizer.param_groups[0]["lr"] = Rate(0.1)

    with (
        pytest.raises(ModelError, match=r"'lr'.* is a Rate"),
        dssync.GroupSync(model, optimizer) as sync,
    ):
        sync.step()


def test_who_comes_back_has_no_gradients_of_batches_that_others_train_on_now() -> None:
    model, optimizer = parts()
    with dssync.GroupSync(model, optimizer) as sync:
        for _ in sync.run(loader_of(sync, size=4)):
            model(torch.ones(1, 2)).sum().backward()
            with sync.away():
                pass
            assert [each.grad for each in model.parameters()] == [None, None]
            break
