"""How tests share the cores: whole layers of real processes one by one, all else beside them.

Jobs of gloo workers mind the time, and a control plane is too dear to have twice; so neither layer
is spread over several processes (``pytest -n``). They wait more than they compute.
"""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
ONE_BY_ONE = ("api", "integration")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        place = item.path.relative_to(HERE)
        layer = place.parts[0]
        item.add_marker(pytest.mark.xdist_group(layer if layer in ONE_BY_ONE else str(place)))
