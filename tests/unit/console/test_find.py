"""Where the commands for people look for a job, and what they say about wrong places."""

import json
from pathlib import Path

import pytest

from dssync.console.find import target
from dssync.errors import UsageError

ADDRESS = "dssync.io/address"


def run_folder(parent: Path, name: str, address: str = "127.0.0.1:4000") -> Path:
    folder = parent / name
    folder.mkdir()
    record = {"holder": "a", "term": 1, "values": {ADDRESS: address}}
    (folder / "arbiter").mkdir()
    (folder / "arbiter" / "1").write_text(json.dumps(record))
    (folder / "token").write_text("of the run\n")
    return folder


def test_an_address_is_asked_with_the_token_of_the_file(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(" secret\n")

    found = target("[::1]:4000", str(token), {})

    assert (found.host, found.port, found.token) == ("::1", 4000, b"secret")


def test_a_run_folder_gives_the_coordinators_address_and_the_token(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "run")

    found = target(str(folder), None, {})

    assert (found.host, found.port, found.token) == ("127.0.0.1", 4000, b"of the run")


def test_the_only_local_run_is_meant_when_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run_folder(tmp_path, "dssync-a")

    assert target(None, None, {}).token == b"of the run"

    run_folder(tmp_path, "dssync-b")
    with pytest.raises(UsageError, match=r"2 local runs were found.*dssync-a, .*dssync-b"):
        target(None, None, {})


def test_inside_a_pod_its_own_launcher_is_asked(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("of the pod")
    variables = {
        "DSSYNC_POD_IP": "10.0.0.7",
        "DSSYNC_RENDEZVOUS_PORT": "29400",
        "DSSYNC_TOKEN_FILE": str(tmp_path / "token"),
    }

    found = target(None, None, variables)

    assert (found.host, found.port, found.token) == ("10.0.0.7", 29400, b"of the pod")


@pytest.mark.parametrize(
    ("at", "token_file", "words"),
    [
        ("nowhere", None, "--at: 'nowhere' was given, expected HOST:PORT or a run folder"),
        ("host:0", None, "--at: 'host:0' was given"),
        ("host:high", None, "--at: 'host:high' was given"),
        ("empty", None, "folder empty holds no record of a job that somebody coordinates"),
        ("torn", None, "folder torn holds no record"),
        ("host:1", "missing", "token file missing cannot be read: No such file"),
        ("host:1", "blank", "token file blank is empty"),
        (None, None, "no local run was found: start one with 'dssync local'"),
    ],
)
def test_a_wrong_place_gets_one_sentence(
    at: str | None,
    token_file: str | None,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    Path("empty").mkdir()
    Path("torn/arbiter").mkdir(parents=True)
    Path("torn/arbiter/1").write_text('{"values": 3')
    Path("blank").touch()

    with pytest.raises(UsageError) as caught:
        target(at, token_file, {})

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
