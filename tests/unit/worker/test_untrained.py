"""A worker that takes no part in its job does not end as if it had."""

from collections.abc import Callable
from contextlib import closing

import pytest
import torch
from torch.utils.data import DataLoader

import dssync
from dssync.agent import workermain
from dssync.control import messages as m
from dssync.errors import UsageError
from dssync.worker import groupsync
from dssync.worker.link import Link, Setup
from unit.worker.other_end import OWN

Make = Callable[..., dssync.GroupSync]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what makes the ``GroupSync`` of a worker, whose hello is answered with messages."""
    monkeypatch.setattr(workermain, "at_end", [])

    def make(*told: m.ToMemberBody) -> dssync.GroupSync:
        def transmit(messages: list[bytes]) -> None:
            if any(isinstance(m.MEMBER.decode(each), m.Enter) for each in messages):
                for message in told:
                    link.receive(m.TO_MEMBER.encode(message))

        link = Link(Setup(OWN), transmit, lambda _: None)
        monkeypatch.setattr(groupsync, "open_link", lambda _: link)
        model = torch.nn.Linear(2, 1)
        return dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=0.1))

    return make


def end_of_script() -> None:
    for check in workermain.at_end:
        check()


def test_who_never_joined_says_so_at_the_end_of_the_script(worker: Make) -> None:
    sync = worker()

    with pytest.raises(UsageError, match=r"took no part.*sync\.run.*sync\.step"):
        end_of_script()
    with pytest.raises(UsageError, match="took no part"):
        sync.close()
    with pytest.raises(UsageError, match="took no part"), worker():
        pass


def test_an_error_under_way_is_what_a_worker_ends_with(worker: Make) -> None:
    with pytest.raises(ValueError, match="no data"), worker():
        raise ValueError("no data")
    with pytest.raises(ValueError, match="no data"), closing(worker()):
        raise ValueError("no data")


@pytest.mark.parametrize("told", [m.Completed(0), m.LastRound(-1)])
def test_who_came_in_ends_well_though_nothing_was_left_to_do(
    worker: Make, told: m.ToMemberBody
) -> None:
    with worker(told) as sync:
        seen = list(sync.run(DataLoader(range(4), batch_sampler=sync.batches(range(4), 2))))

    assert seen == []
    end_of_script()


def test_who_was_only_away_ends_well(worker: Make) -> None:
    with worker(m.Completed(0)) as sync, sync.away():
        pass

    end_of_script()


def test_plain_python_asks_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workermain, "at_end", [])
    model = torch.nn.Linear(2, 1)

    with dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        pass

    end_of_script()


def loader_of(sync: dssync.GroupSync) -> DataLoader:
    return DataLoader(range(8), batch_sampler=sync.batches(range(8), 4))


def test_a_second_run_after_the_end_of_the_job_is_refused() -> None:
    model = torch.nn.Linear(2, 1)
    with dssync.GroupSync(model, torch.optim.SGD(model.parameters(), lr=0.1)) as sync:
        for _ in sync.run(loader_of(sync)):
            sync.step()

        with pytest.raises(UsageError, match=r"the job is done.*epochs"):
            next(iter(sync.run(loader_of(sync))))


def test_a_second_run_of_a_member_that_was_drained_is_empty(worker: Make) -> None:
    with worker(m.LastRound(-1), m.Completed(0)) as sync:
        assert [list(sync.run(loader_of(sync))) for _ in range(2)] == [[], []]
