"""A supervisor of small scripts, its exits in a queue."""

import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from dssync.agent.settings import (
    Command,
    LogSettings,
    Settings,
    SupervisionSettings,
    WorldSettings,
)
from integration.agent.crew import Crew

Hire = Callable[..., Crew]

PREAMBLE = """
import os, signal, socket, sys
link = socket.socket(fileno=int(os.environ["DSSYNC_LINK_FD"]))
def say(text): link.sendall(str(text).encode())
"""


@pytest.fixture
async def hire(tmp_path: Path) -> AsyncIterator[Hire]:
    """Make a crew: ``hire(script)`` or ``hire(command=...)``; all end with the test."""
    crews: list[Crew] = []

    def make(
        script: str = "",
        command: Command | None = None,
        logs: LogSettings | None = None,
        *,
        max_restarts: int = 0,
        restart_codes: frozenset[int] | None = None,
        environment: dict[str, str] | None = None,
        preload: tuple[str, ...] = (),
    ) -> Crew:
        path = tmp_path / "script.py"
        path.write_text(PREAMBLE + script)
        settings = Settings(
            command=command or Command("script", str(path)),
            world=WorldSettings(nproc_per_node=4),
            supervision=SupervisionSettings(max_restarts=max_restarts, restart_codes=restart_codes),
            logs=logs or LogSettings(),
            environment={**os.environ, **(environment or {})},
        )
        crews.append(Crew(settings, preload))
        return crews[-1]

    yield make
    for crew in crews:
        links = [worker.link for worker in crew.supervisor.workers]
        await crew.stop()
        for link in links:
            link.close()
