"""A recorded member is played again whatever happened to it."""

from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from dssync.control import messages as m
from dssync.control.replay import ACTS, Donates, Ending, Round
from dssync.control.viewlog import Draw, Entered, Left, Point, Skipped
from dssync.worker.buckets import Buckets
from dssync.worker.link import Link, Setup
from dssync.worker.options import SyncOptions
from dssync.worker.outcome import Outcome
from dssync.worker.payload import Payload
from dssync.worker.replay import ReplaySession
from unit.worker.other_end import OWN


def solo(number: int, kind: str = "train") -> m.Assign:
    """Return a round in which nobody is left to average with."""
    return m.Assign(number, 0, kind, True, (), (), 1, 1, OWN, "", False, 0.5, 1)


def session_of(
    folder: Path,
    *acts: object,
    model: torch.nn.Module | None = None,
    said: list[object] | None = None,
) -> ReplaySession:
    model, said = model or torch.nn.Linear(1, 1), [] if said is None else said
    part = folder / "part"
    lines = [ACTS.encode_text(each) for each in (*acts, Ending(True))]  # type: ignore[arg-type]
    part.write_text("\n".join(lines))
    payload = Payload(model, torch.optim.SGD(model.parameters(), lr=1.0))
    link = Link(Setup(OWN, host="", replay=str(part)), said.append, lambda _: None)
    return ReplaySession(link, SyncOptions.of(link.setup, None, None, None), payload)


def test_a_joiner_whose_first_round_went_on_without_it_trains_after_it(tmp_path: Path) -> None:
    acts = (
        Entered(OWN, 0, "", None, 3, ()),
        Skipped(OWN, 3, True, ()),
        Round(solo(4), False, "0x0.0p+0", True, (Draw(0, 7),)),
        Left(OWN, True, "", ()),
    )
    session = session_of(tmp_path, *acts)
    told: list[Outcome] = []
    session.listeners.append(told.append)

    session.join()
    drawn = session.draw(0, 1)
    session.sync(idle=False)

    assert drawn == 7
    assert [(each.round, each.result) for each in told] == [(3, "skipped"), (4, "solo")]
    assert session.over


def test_a_member_without_data_idles_through_a_round_that_went_on_without_it(
    tmp_path: Path,
) -> None:
    skipped = Skipped(OWN, 3, True, (Draw(0, -1),))
    session = session_of(
        tmp_path, Entered(OWN, 0, "", None, 3, ()), skipped, Left(OWN, True, "", ())
    )
    session.join()

    assert session.draw(0, 1) is None
    assert not session.has_leases

    session.sync(idle=True)
    assert session.over


@pytest.mark.parametrize("kind", ["train", "final"])
def test_who_left_before_the_end_speaks_for_the_job_no_more(tmp_path: Path, kind: str) -> None:
    acts = (
        Entered(OWN, 0, "", None, 3, ()),
        Round(solo(3), False, "0x0.0p+0", True, ()),
        Round(solo(4, kind), False, "0x0.0p+0", True, ()),
        Left(OWN, True, "", ()),
    )
    session = session_of(tmp_path, *acts)
    found = [session.is_first]

    session.join()
    for _ in range(2):
        session.sync(idle=False)
        found.append(session.is_first)

    assert found == [False, True, kind == "final"]


def test_a_model_that_replaces_its_tensors_ends_with_those_of_the_log(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    replaced = {"weight": torch.tensor([[2.0]]), "bias": torch.tensor([3.0])}
    digest = Buckets(list(replaced.values())).digest
    acts = (
        Entered(OWN, 0, "", None, 3, ()),
        Round(solo(3), False, "0x0.0p+0", True, ()),
        Left(OWN, True, digest, ()),
    )
    session = session_of(tmp_path, *acts, model=model)
    session.join()

    model.load_state_dict(replaced, assign=True)
    session.sync(idle=False)
    session.link.state.completed = m.Completed(0)

    session.leave("leave")
    assert session.left


def test_who_enters_again_has_no_gradients_of_its_former_life(tmp_path: Path) -> None:
    again = Entered(OWN, 1, "", None, 3, (Draw(0, 7),))
    session = session_of(tmp_path, Entered(OWN, 0, "", None, 0, ()), again)
    session.join()
    model = session._payload.model
    model(torch.ones(1, 1)).sum().backward()

    session.draw(0, 1)
    session.sync(idle=False)

    assert [each.grad for each in model.parameters()] == [None, None]


def donates() -> Donates:
    """A copy after one step, when its round had been applied and a batch was drawn."""
    return Donates(Point(0, 1, 0), 0, ())


def test_a_copy_that_was_taken_in_a_wait_for_data_follows_what_the_script_does_after_a_step(
    tmp_path: Path,
) -> None:
    first, second = (Draw(0, 7),), (Draw(0, 8),)
    rounds = (Round(solo(0), False, "0x0.0p+0", True, first), donates())
    last = Round(solo(1), False, "0x0.0p+0", True, second)
    said: list[object] = []
    session = session_of(tmp_path, Entered(OWN, 0, "", None, 0, ()), *rounds, last, said=said)
    session.join()

    session.draw(0, 1)
    session.steps += 1
    session.sync(idle=False)
    after_step = len(said)
    drawn = session.draw(0, 1)

    assert drawn == 8
    assert said[after_step:] == [[m.MEMBER.encode(m.Arrive(1, 0, True))]]


def test_who_comes_in_gives_copies_away_between_its_first_rounds(tmp_path: Path) -> None:
    rounds = (
        Round(solo(0), True, "0x0.0p+0", True, ()),
        Donates(Point(0, 0, 0), 0, ()),
        Round(solo(1), True, "0x0.0p+0", True, ()),
        Round(solo(2), False, "0x0.0p+0", True, (Draw(0, 8),)),
    )
    session = session_of(tmp_path, Entered(OWN, 0, "", None, 0, ()), *rounds)

    session.join()

    assert session.draw(0, 1) == 8


def test_a_copy_that_was_taken_in_an_idle_round_comes_before_it(tmp_path: Path) -> None:
    rounds = (
        Round(solo(0), False, "0x0.0p+0", True, (Draw(0, 7),)),
        replace(donates(), drawn=(Draw(0, -1),)),
        Round(solo(1), True, "0x0.0p+0", True, ()),
    )
    session = session_of(
        tmp_path, Entered(OWN, 0, "", None, 0, ()), *rounds, Left(OWN, True, "", ())
    )
    session.join()
    session.draw(0, 1)
    session.steps += 1
    session.sync(idle=False)

    assert session.draw(0, 1) is None
    assert not session.has_leases
    session.sync(idle=True)
    assert session.over


def test_a_copy_of_the_last_values_is_given_before_the_script_goes_on(tmp_path: Path) -> None:
    rounds = (Round(solo(0, "final"), False, "0x0.0p+0", True, ()), donates())
    session = session_of(
        tmp_path, Entered(OWN, 0, "", None, 0, ()), *rounds, Left(OWN, True, "", ())
    )
    session.join()
    session.steps += 1

    session.sync(idle=False)

    assert session.over
