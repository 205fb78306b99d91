"""What is said at the start about who may take part."""

from pathlib import Path

import pytest

from dssync.agent.office import warnings_for
from dssync.agent.settings import Command, ControlSettings, Settings


def warned(address: str, token_file: Path | None = None) -> tuple[str, ...]:
    control = ControlSettings(address=address, token_file=token_file)
    return warnings_for(Settings(Command("script", "x", ()), control=control))


@pytest.mark.parametrize("address", ["10.0.0.1", "0.0.0.0", "fd00::1", "node-1"])
def test_a_launcher_that_anybody_may_join_says_so_in_one_line(address: str) -> None:
    (line,) = warned(address)

    assert "--token-file" in line
    assert "\n" not in line


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_a_launcher_that_only_this_machine_reaches_says_nothing(address: str) -> None:
    assert warned(address) == ()


def test_a_launcher_with_a_token_says_nothing() -> None:
    assert warned("10.0.0.1", Path("token")) == ()
