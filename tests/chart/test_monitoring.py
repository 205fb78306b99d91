"""What the chart brings for Prometheus and Grafana: rules with their tests, the dashboard."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from chart.rendering import CHART, render, sets
from dssync.agent.series import SERIES
from dssync_operator.metrics import Metrics

# Longer than a call's own patience, of which a test makes many.
pytestmark = pytest.mark.timeout(180)


def needs_promtool() -> None:
    if shutil.which("promtool") is None:
        if os.environ.get("DSSYNC_REQUIRE_GROUND") == "1":
            raise AssertionError("promtool is missing: install the Debian package prometheus")
        pytest.skip("no promtool: install the Debian package prometheus")


@pytest.mark.parametrize(
    "command", [("check", "rules", "operator.yaml"), ("test", "rules", "operator_test.yaml")]
)
def test_promtool_accepts_the_rules_and_their_tests(command: tuple[str, ...]) -> None:
    needs_promtool()

    done = subprocess.run(
        ["promtool", *command], cwd=CHART / "rules", capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_dashboard_is_found_by_the_sidecar_and_whole() -> None:
    found = render(*sets(metrics__dashboard__enabled=True))

    (carrier,) = [part for part in found if part["kind"] == "ConfigMap"]
    assert carrier["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(carrier["data"]["dssync.json"]) == dashboard()
    assert not [part for part in render() if part["kind"] == "ConfigMap"]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((CHART / "dashboards" / "dssync.json").read_text())
    return found


def expressions() -> list[str]:
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]


def test_dashboard_speaks_of_series_that_exist() -> None:
    families = {family.name for family in Metrics().registry.collect()}
    families |= {series.name.removesuffix("_total") for series in SERIES}
    used = set(re.findall(r"dssync_\w+", " ".join(expressions())))
    bare = {re.sub(r"_(bucket|total|sum|count)$", "", name) for name in used}

    assert len(bare) > 10
    assert bare <= families


def test_promtool_understands_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    needs_promtool()
    rules = [
        {"record": f"panel:{number}", "expr": text.replace("$__rate_interval", "5m")}
        for number, text in enumerate(expressions())
    ]
    place = tmp_path / "rules.yaml"
    place.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))

    done = subprocess.run(
        ["promtool", "check", "rules", str(place)], capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(rules)} rules found" in done.stdout


def test_alerts_speak_of_series_that_exist() -> None:
    families = {family.name for family in Metrics().registry.collect()}
    rules = (CHART / "rules" / "operator.yaml").read_text()
    used = set(re.findall(r"dssync_operator_\w+", rules)) - {"dssync_operator"}
    bare = {re.sub(r"_(bucket|total|sum|count)$", "", name) for name in used}

    assert bare <= families
