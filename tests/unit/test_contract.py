"""Nothing in the contract is a word without a deed: each name has a writer and a reader."""

import re
import zlib
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from dssync import contract
from dssync.control.record import MOST_LAUNCHERS, Record
from dssync_operator.record import Wanted, parse_record
from ground.largest import Largest

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
AROUND = {"ENV_SETTINGS"}
"""Holds others; the contract itself writes and reads it."""


def named_in(folders: tuple[str, ...], prefix: str) -> set[str]:
    """Return the names of the contract that the modules in some folders use."""
    text = "\n".join(
        path.read_text() for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))
    )
    return set(re.findall(rf"\b{prefix}_[A-Z_]+\b", text))


def names(prefix: str) -> set[str]:
    return {name for name in vars(contract) if name.startswith(f"{prefix}_")}


def test_the_launcher_reads_every_variable_that_a_pod_gets() -> None:
    assert names("ENV") - named_in(LAUNCHER, "ENV") - AROUND == set()


@pytest.mark.parametrize("writer", [OPERATOR, LOCAL], ids=["operator", "local"])
def test_each_variable_is_set_on_a_cluster_and_on_one_machine(writer: tuple[str, ...]) -> None:
    assert names("ENV") - named_in(writer, "ENV") - BY_PEOPLE - INSIDE - AROUND == set()


def test_variables_that_are_gathered_come_back_when_they_are_spread_and_win() -> None:
    told = {contract.ENV_JOB_NAME: "demo", contract.ENV_SLOT: "3", contract.ENV_MODE: "pool"}

    gathered = contract.gathered(told)

    assert gathered.keys() == {contract.ENV_JOB_NAME, contract.ENV_SLOT, contract.ENV_SETTINGS}
    of_the_image = {"HOME": "/h", contract.ENV_MODE: "grid"}
    assert contract.spread(of_the_image | gathered) == {"HOME": "/h"} | told


def test_empty_settings_count_as_unset() -> None:
    assert contract.spread({"HOME": "/h", contract.ENV_SETTINGS: ""}) == {"HOME": "/h"}


@pytest.mark.parametrize("text", ["pool", "[]", "null", '{"DSSYNC_SEED": 1}', "{", "[" * 99999])
def test_settings_that_cannot_be_read_are_refused_with_what_was_expected(text: str) -> None:
    with pytest.raises(
        ValueError, match=r"DSSYNC_SETTINGS is '.*: expected a JSON object of texts"
    ):
        contract.spread({contract.ENV_SETTINGS: text})


@pytest.mark.parametrize("prefix", ["RECORD", "VERDICT", "EXIT"])
def test_the_launcher_knows_every_entry_verdict_and_exit_code(prefix: str) -> None:
    assert names(prefix) - named_in(LAUNCHER, prefix) == set()


def test_a_job_may_choose_the_modes_that_exist_and_no_other() -> None:
    (version,) = CRD["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]

    assert tuple(spec["sync"]["properties"]["mode"]["enum"]) == contract.MODES


def test_the_record_of_the_largest_job_fits_into_one_object_and_both_sides_read_all_of_it() -> None:
    largest = Largest()

    size = sum(len(key) + len(value) for key, value in largest.annotations.items())
    record = Record(values=largest.annotations)
    ours = parse_record({"metadata": {"annotations": largest.annotations}})

    # The API server allows 256 KiB; what else there is has less than one.
    assert size < 255 * 1024, {key: len(value) for key, value in largest.annotations.items()}
    assert (record.gone, record.paths) == (frozenset(largest.wanted.gone), largest.wanted.nodes)
    assert record.launchers == largest.launchers[:MOST_LAUNCHERS]
    assert ours.wanted == largest.wanted
    assert ours.launchers == tuple(each.uid for each in record.launchers)


def test_entries_of_a_small_job_can_be_read_by_eye() -> None:
    wanted = Wanted(4, 1, 4, gone=Largest().uids(8), nodes={"node-a": "zone-a/rack-7"})

    written = wanted.annotations()

    assert written[contract.RECORD_GONE].startswith('["')
    assert written[contract.RECORD_NODES] == '{"node-a":"zone-a/rack-7"}'


def _packed(size: int) -> str:
    return "zlib:" + b64encode(zlib.compress(b"[" + b"0," * size + b"0]")).decode()


@pytest.mark.parametrize(
    "text",
    ["zlib:", "zlib:%", "zlib:AAAA", _packed(10_000)[:-8], _packed(5_000_000)],
    ids=["empty", "not base64", "not compressed", "cut off", "a bomb"],
)
def test_an_entry_that_cannot_be_unpacked_counts_as_not_written(text: str) -> None:
    written = {contract.RECORD_GONE: text, contract.RECORD_LAUNCHERS: text}

    assert Record(values=written).gone == frozenset()
    assert parse_record({"metadata": {"annotations": written}}).launchers == ()
