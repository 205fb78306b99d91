"""Whom a launcher that does not coordinate names to people who ask it."""

import asyncio
from pathlib import Path

import pytest

from dssync import contract
from dssync.agent.arbiters import FileArbiter
from dssync.agent.console import Console
from dssync.agent.metrics import Metrics
from dssync.agent.report import Reporter
from dssync.agent.settings import Command, JobSettings, Settings
from dssync.control import ballots as b, requests as r
from dssync.control.ballots import ElectionSettings
from dssync.control.election import Election
from dssync.control.record import Record
from dssync.control.takeover import Launcher

ME = Launcher(1, "me", "10.0.0.1:1", "")
FIRST = Record("1", "first", 1, {contract.RECORD_ADDRESS: "10.0.0.2:1"})
SECOND = Record("2", "second", 2, {contract.RECORD_ADDRESS: "10.0.0.3:1"})


@pytest.fixture
def follower(tmp_path: Path) -> Console:
    """The console of a launcher that is linked to the coordinator of the first term."""
    election = Election(ME, ElectionSettings(), 0.0)
    election.handle(b.Looked(FIRST), 0.1)
    election.handle(b.Linked(1), 0.2)
    arbiter = FileArbiter(tmp_path / "arbiter")
    settings = Settings(Command("script", "x", ()), JobSettings(slot=1))
    console = Console(settings, Reporter(Metrics()), arbiter)
    console.election = election
    return console


def ask(console: Console) -> r.Answer:
    return asyncio.run(console.respond(r.AskStatus()))


def test_a_follower_names_its_coordinator_while_the_arbiter_is_away(
    follower: Console, tmp_path: Path
) -> None:
    (tmp_path / "arbiter").touch()  # No folder: it can be neither read nor written.

    assert ask(follower) == r.Elsewhere("10.0.0.2:1")


def test_who_has_lost_its_coordinator_names_the_one_of_the_record(
    follower: Console, tmp_path: Path
) -> None:
    asyncio.run(FileArbiter(tmp_path / "arbiter").swap(Record(), SECOND))
    assert follower.election is not None
    follower.election.handle(b.LinkLost(), 0.3)

    assert ask(follower) == r.Elsewhere("10.0.0.3:1")


def test_a_launcher_that_has_just_started_names_the_coordinator_of_the_record(
    follower: Console, tmp_path: Path
) -> None:
    asyncio.run(FileArbiter(tmp_path / "arbiter").swap(Record(), SECOND))
    follower.election = None

    assert ask(follower) == r.Elsewhere("10.0.0.3:1")


def test_who_knows_of_no_coordinator_says_so(follower: Console) -> None:
    follower.election = None

    answer = ask(follower)

    assert isinstance(answer, r.Refused)
    assert "nobody coordinates" in answer.reason
