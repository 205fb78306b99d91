"""The operator's endpoint over TLS."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from dssync_operator.certificate import Certificate
from dssync_operator.errors import SettingsError
from dssync_operator.metrics import Metrics
from dssync_operator.probes import Probes
from dssync_operator.settings import Settings
from ground.control_plane import free_ports


def make_certificate(folder: Path, name: str) -> Path:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    files = ["-keyout", str(folder / "tls.key"), "-out", str(folder / "tls.crt")]
    names = ["-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True, timeout=60)
    return folder


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[int]:
    """Where probes answer, over TLS as ``first.example``."""
    make_certificate(tmp_path, "first.example")
    settings = Settings(port=free_ports(1)[0], tls_folder=str(tmp_path))
    async with Probes(settings, Metrics(), Well()):
        yield settings.port


class Well:
    """A candidate that could lead."""

    def unhealthy(self) -> str | None:
        return None


async def ask(port: int, path: str, folder: Path, name: str) -> int:
    """Ask over a new connection that accepts this certificate and name only."""
    context = ssl.create_default_context(cafile=str(folder / "tls.crt"))
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://127.0.0.1:{port}{path}", ssl=context, server_hostname=name) as said,
    ):
        return said.status


async def test_all_that_is_served_is_served_over_tls(port: int, tmp_path: Path) -> None:
    for path in ("/metrics", "/healthz", "/readyz"):
        assert await ask(port, path, tmp_path, "first.example") == 200

    with pytest.raises(aiohttp.ClientError):
        async with aiohttp.ClientSession() as session:
            await session.get(f"http://127.0.0.1:{port}/metrics")


async def test_helm_test_reaches_an_operator_whose_certificate_it_cannot_know(
    port: int, tmp_path: Path
) -> None:
    url = f"https://127.0.0.1:{port}/readyz"
    command = (sys.executable, "-m", "dssync_operator.selfcheck", url, "[]")
    environment = {**os.environ, "KUBECONFIG": str(tmp_path / "none")}

    asking = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await asyncio.wait_for(asking.communicate(), 60)

    assert said.startswith(b"no usable credentials")


async def test_certificate_that_was_renewed_is_shown_after_the_next_probe(
    port: int, tmp_path: Path
) -> None:
    before = (tmp_path / "tls.crt").read_bytes()
    make_certificate(tmp_path, "second.example")

    old = tmp_path / "old"
    old.mkdir()
    (old / "tls.crt").write_bytes(before)
    await ask(port, "/healthz", old, "first.example")

    assert await ask(port, "/metrics", tmp_path, "second.example") == 200


async def test_certificate_that_is_spoilt_leaves_the_old_one_in_place(
    port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "tls.crt").write_bytes((tmp_path / "tls.crt").read_bytes())
    (tmp_path / "tls.crt").write_text("half of a certifi")

    for _ in range(3):
        assert await ask(port, "/healthz", old, "first.example") == 200

    assert "tls.crt" in caplog.text


def test_without_a_usable_certificate_the_operator_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"TLS_FOLDER.*tls.crt and tls.key"):
        Certificate(tmp_path)
