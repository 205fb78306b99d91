"""Command lines of the commands for people, and how answers look."""

import pytest

from dssync.cli import COMMANDS, main
from dssync.console.cli import COMMANDS as DESCRIBED
from dssync.console.show import status_text
from dssync.control.requests import MemberStatus, PodStatus, Status

STATUS = Status(
    job="digits",
    term=2,
    coordinator=1,
    view=7,
    round=120,
    batches_committed=30,
    batches_total=120,
    completed=False,
    desired=2,
    minimum=1,
    pods=(
        PodStatus(0, "", 1, "lost", 1.26),
        PodStatus(1, "node-a", 1, "connected", 0.1),
    ),
    members=(
        MemberStatus("0.0." + "ab" * 16, "active", 119, True),
        MemberStatus("1.0." + "cd" * 16, "entered", -1, False),
    ),
)


def test_the_command_line_knows_every_command() -> None:
    assert set(COMMANDS) == set(DESCRIBED)


def test_a_status_is_a_sentence_and_two_tables() -> None:
    assert status_text(STATUS).splitlines() == [
        "job digits: term 2, view 7, round 120, 1 of 2 members active, 2 of 2 launchers "
        "(at least 1), 25.0 % of 120 batches committed",
        "",
        "SLOT  STATE      WORKERS  HEARD      NODE",
        "0     lost       1        1.3 s ago  -",
        "1*    connected  1        0.1 s ago  node-a",
        "",
        "MEMBER        PHASE    ROUND  COUNTS",
        "0.0.abababab  active   119    yes",
        "1.0.cdcdcdcd  entered  -      no",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["drain"], "dssync drain: the following arguments are required: slot"),
        (["drain", "first"], "argument slot: 'first' was given, expected a whole number from 0"),
        (["scale", "-1"], "dssync scale:"),
        (["scale", "²"], "expected a whole number from 0"),
        (["kick"], "the following arguments are required: member"),
        (["status", "--output", "xml"], "argument --output/-o: invalid choice: 'xml'"),
        (["log", "--tail"], "unrecognized arguments: --tail"),
        (["stauts"], "unknown command 'stauts': expected run, local or status, top, drain"),
    ],
)
def test_a_wrong_command_line_gets_a_sentence_and_code_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert words in capsys.readouterr().err


def test_nobody_there_gets_a_sentence_and_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--at", "127.0.0.1:1"]) == 1
    assert capsys.readouterr().err.startswith("dssync: nobody can be asked at 127.0.0.1:1: ")


@pytest.mark.parametrize("command", [["status"], ["run", "train.py"]], ids=["status", "run"])
def test_settings_of_a_pod_that_cannot_be_read_cost_one_sentence(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSSYNC_SETTINGS", "{")

    assert main(command) == 2

    said = "dssync: DSSYNC_SETTINGS is '{': expected a JSON object of texts\n"
    assert capsys.readouterr().err == said


def test_a_pod_s_settings_say_where_its_token_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DSSYNC_SETTINGS", '{"DSSYNC_TOKEN_FILE": "/nowhere/token"}')
    monkeypatch.setenv("DSSYNC_POD_IP", "127.0.0.1")

    assert main(["status"]) != 0

    assert "/nowhere/token" in capsys.readouterr().err
