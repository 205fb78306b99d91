"""The chart as helm renders it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ground import build

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "dssync"


def helm_program() -> Path:
    """The helm that was built; a test that needs it is left out where there is none."""
    try:
        return build.binary("helm")
    except build.GroundError as error:
        if os.environ.get("DSSYNC_REQUIRE_GROUND") == "1":
            raise
        pytest.skip(str(error))


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    path = helm_program()
    return subprocess.run([str(path), *arguments], capture_output=True, text=True, timeout=60)


def render(*arguments: str) -> list[dict[str, Any]]:
    done = helm("template", "test", str(CHART), "--namespace", "ns", *arguments)
    assert done.returncode == 0, done.stderr
    return [part for part in yaml.safe_load_all(done.stdout) if part]


def sets(**values: object) -> list[str]:
    return [
        part
        for key, value in values.items()
        for part in ("--set-json", f"{key.replace('__', '.')}={json.dumps(value)}")
    ]
