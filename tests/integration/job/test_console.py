"""The commands for people against real launchers, asked at the one that does not coordinate."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from dssync.cli import main
from integration.job.harness import Job, Launcher, matching
from integration.job.processes import wait_gone
from integration.job.takeovers import arbiter_away

pytestmark = pytest.mark.timeout(400)


class Shell:
    """Runs ``dssync`` commands and returns what they print."""

    def __init__(self, at: str, token: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._where = ["--at", at, "--token-file", str(token)]
        self._capsys = capsys

    def __call__(self, *command: str) -> str:
        assert main([*command, *self._where]) == 0
        return self._capsys.readouterr().out

    def json(self, *command: str) -> Any:
        return json.loads(self(*command, "--output", "json"))

    def refused(self, *command: str) -> str:
        assert main([*command, *self._where]) == 1
        return self._capsys.readouterr().err


def slots_of(shell: Shell) -> list[int]:
    return [pod["slot"] for pod in shell.json("status")["pods"]]


def address_of(job: Job, launcher: Launcher, what: str = "dssync listening") -> str:
    line = job.board.wait(launcher.says(what))[0]["text"]
    return next(word[8:] for word in line.split() if word.startswith("address="))


def test_a_job_is_looked_at_and_changed_from_outside(
    job: Job, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token = tmp_path / "token"
    token.write_text("the job's secret")
    flags = ("--token-file", str(token), "--max-restarts", "1", "--metrics-port", "0")
    job.resize(desired=2)
    first = job.pod(0, 2, *flags)
    assert job.coordinator() is first
    other = job.pod(1, 2, *flags)
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, 4)
    shell = Shell(address_of(job, other), token, capsys)

    status = shell.json("status")
    assert (status["coordinator"], status["desired"], status["view"]) == (0, 2, 1)
    assert [pod["state"] for pod in status["pods"]] == ["connected", "connected"]
    assert [member["phase"] for member in status["members"]] == ["active"] * 4
    assert "4 of 4 members active" in shell("status")
    with arbiter_away(job):
        assert shell.json("status")["coordinator"] == 0

    # A worker that is kicked is gone at once, and its launcher starts it again.
    victim = job.board.rounds(slot=1, rank=1)[-1]["pid"]
    assert "1.1." in shell("kick", "1.1")
    assert not wait_gone({victim}, within_seconds=10.0)
    job.board.wait(matching(event="round", slot=1, rank=1, life=1), 3)
    assert "evict" in shell("log")
    assert {line["event"] for line in map(json.loads, shell("log", "-o", "json").splitlines())} >= {
        "coordinating",
        "evict",
        "join",
    }

    # The number of launchers goes into the record, within what the job allows.
    assert shell("scale", "3") == "3 launchers are wanted\n"
    job.board.wait(lambda line: shell.json("status")["desired"] == 3)
    assert shell.refused("scale", "9") == "dssync: 9 launchers were asked for: expected 1 to 4\n"

    # A launcher that is drained leaves as after a signal; the others train on.
    shell_of_first = Shell(address_of(job, first), token, capsys)
    shell_of_first("drain", "1")
    assert other.end() == 0
    assert "verdict=Drained" in other.text
    job.board.wait(lambda line: slots_of(shell_of_first) == [0])
    assert "slot 1 holds no launcher" in shell_of_first.refused("drain", "1")
    assert "member '7.0' is not in this job" in shell_of_first.refused("kick", "7.0")

    # Nothing that anybody can read holds the secret.
    secrets = ("the job's secret", b"the job's secret".hex())
    metrics = address_of(job, first, "dssync metrics")
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=30) as answer:
        shown = answer.read().decode()
    worker = job.board.rounds(slot=0, rank=0)[-1]["pid"]
    variables = Path(f"/proc/{worker}/environ").read_text()
    for text in (first.text, other.text, shown, variables, shell_of_first("log")):
        assert not any(secret in text for secret in secrets)

    # Who does not hold the token learns and changes nothing.
    wrong = tmp_path / "wrong"
    wrong.write_text("something else")
    stranger = Shell(address_of(job, first), wrong, capsys)
    said = stranger.refused("drain", "0")
    assert "check that both sides use one token file" in said
    assert "the job's secret" not in said
    assert slots_of(shell_of_first) == [0]
