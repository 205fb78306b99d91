"""Where to ask, and with which token: an address, a run folder, or what the environment says."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dssync import contract
from dssync.agent.arbiters import FileArbiter
from dssync.agent.office import read_token
from dssync.control.address import address_of, endpoint_of
from dssync.errors import ArbiterError, ProtocolError, UsageError

RUN_FOLDERS = "dssync-*"
"""Run folders of ``dssync local`` in the directory for temporary files."""
RECORD = "arbiter"
"""The arbiter in one of them."""


@dataclass(frozen=True)
class Target:
    """A launcher to ask."""

    host: str
    port: int
    token: bytes


def target(at: str | None, token_file: str | None, environ: Mapping[str, str]) -> Target:
    """Return the launcher to ask.

    Args:
        at: ``HOST:PORT`` or a run folder; without it this pod's own launcher, or the only local
            run.
        token_file: file with the job's secret; without it the variable's or the run folder's.
        environ: of this process.

    Raises:
        UsageError: it is neither, or it stays open which one is meant.
    """
    token_path = token_file or environ.get(contract.ENV_TOKEN_FILE)
    if at is None and environ.get(contract.ENV_POD_IP):
        port = environ.get(contract.ENV_RENDEZVOUS_PORT, str(contract.DEFAULT_PORT))
        at = address_of(environ[contract.ENV_POD_IP], port)
    folder = _only_run() if at is None else Path(at)
    if folder.is_dir():
        return _of_folder(folder, token_path)
    return _address(str(at), read_token(Path(token_path) if token_path else None))


def _of_folder(folder: Path, token_path: str | None) -> Target:
    try:
        address = FileArbiter(folder / RECORD).read_now().values[contract.RECORD_ADDRESS]
    except (ArbiterError, KeyError):
        raise UsageError(
            f"folder {folder} holds no record of a job that somebody coordinates: name the run "
            "folder of 'dssync local', or HOST:PORT"
        ) from None
    token = Path(token_path) if token_path else folder / "token"
    return _address(address, read_token(token if token.exists() or token_path else None))


def _address(text: str, token: bytes) -> Target:
    try:
        host, port = endpoint_of(text)
    except ProtocolError:
        port = 0
    if not port:
        raise UsageError(f"--at: {text!r} was given, expected HOST:PORT or a run folder")
    return Target(host, port, token)


def _only_run() -> Path:
    folders = sorted(
        each
        for each in Path(tempfile.gettempdir()).glob(RUN_FOLDERS)
        if (each / RECORD).is_dir() and os.access(each, os.W_OK)
    )
    if not folders:
        raise UsageError(
            "no local run was found: start one with 'dssync local', or say where to ask with "
            "--at HOST:PORT"
        )
    if len(folders) > 1:
        raise UsageError(
            f"{len(folders)} local runs were found: say which one with --at, one of "
            f"{', '.join(map(str, folders))}"
        )
    return folders[0]
