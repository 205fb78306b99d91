"""Nothing in the contract is a word without a deed: each name has a writer and a reader."""

import re
from pathlib import Path

import pytest
import yaml

from dssync import contract

ROOT = Path(__file__).parents[2]
CRD = yaml.safe_load((ROOT / "crds" / "dssyncjob.yaml").read_text())
OPERATOR = ("operator/dssync_operator",)
LAUNCHER = tuple(
    f"launcher/dssync/{part}" for part in ("agent", "control", "flags", "worker", "console")
)
LOCAL = ("launcher/dssync/local",)
BY_PEOPLE = {"ENV_TOPOLOGY"}
"""Set by people, where nobody may read nodes."""
INSIDE = {"ENV_LINK_FD"}
"""Between a launcher and its own workers."""


def named_in(folders: tuple[str, ...], prefix: str) -> set[str]:
    """Return the names of the contract that the modules in some folders use."""
    text = "\n".join(
        path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    )
    return set(re.findall(rf"\b{prefix}_[A-Z_]+\b", text))


def names(prefix: str) -> set[str]:
    return {name for name in vars(contract) if name.startswith(f"{prefix}_")}


def test_the_launcher_reads_every_variable_that_a_pod_gets() -> None:
    assert names("ENV") - named_in(LAUNCHER, "ENV") == set()


@pytest.mark.parametrize("writer", [OPERATOR, LOCAL], ids=["operator", "local"])
def test_each_variable_is_set_on_a_cluster_and_on_one_machine(writer: tuple[str, ...]) -> None:
    # On one machine the file that is the arbiter is what launchers find each other by.
    left_out = {"ENV_SEEDS"} if writer is LOCAL else set()

    assert names("ENV") - named_in(writer, "ENV") - BY_PEOPLE - INSIDE == left_out


@pytest.mark.parametrize("prefix", ["RECORD", "VERDICT", "EXIT"])
def test_the_launcher_knows_every_entry_verdict_and_exit_code(prefix: str) -> None:
    assert names(prefix) - named_in(LAUNCHER, prefix) == set()


def test_a_job_may_choose_the_modes_that_exist_and_no_other() -> None:
    (version,) = CRD["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    assert tuple(spec["sync"]["properties"]["mode"]["enum"]) == contract.MODES
