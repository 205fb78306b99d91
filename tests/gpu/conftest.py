"""Everything here needs a GPU, and says so in one line where there is none."""

import os
from pathlib import Path

import pytest

from dssync.flags.machine import gpu_count

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = not gpu_count(os.environ)
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(300))
            if missing:
                item.add_marker(pytest.mark.skip(reason="there is no NVIDIA GPU here"))
