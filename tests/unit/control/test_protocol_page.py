"""``docs/protocol.md`` names a test or a mutant for each rule, and each message; all must exist."""

import re
from pathlib import Path

from dssync.control.codec import Message
from dssync.control.messages import (
    FromLauncher,
    FromMemberBody,
    ToLauncher,
    ToMemberBody,
)
from dssync.control.peers import Answer, Ask, Elected
from simulation.mutants import MUTANTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/protocol.md").read_text()
HERE = Path(__file__).parent
JOBS = HERE.parents[1] / "integration/job"
SIMULATED = HERE.parents[1] / "simulation"


def rows() -> list[list[str]]:
    """Return the cells of the page's tables that have a column for what holds a rule."""
    tables = re.findall(r"^\|.*(?:Held by|Seen in) \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.M)
    lines = [line for table in tables for line in table.splitlines()]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_test_that_the_page_names_exists() -> None:
    folders = (HERE, JOBS, SIMULATED)
    sources = [path.read_text() for folder in folders for path in folder.glob("test_*.py")]
    known = re.findall(r"def (test_\w+)", "\n".join(sources))

    named = re.findall(r"test_\w+?(?=_…)", PAGE)

    assert len(named) > 30
    assert [prefix for prefix in named if not any(name.startswith(prefix) for name in known)] == []


def test_every_rule_names_a_file_of_tests_or_the_simulator() -> None:
    files = {path.stem.removeprefix("test_") for path in HERE.glob("test_*.py")}
    files |= {f"job/{path.stem}" for path in JOBS.glob("test_*.py")}
    files |= {f"simulation/{path.stem}" for path in SIMULATED.glob("test_*.py")}
    files |= {f"{path.parent.name}/{path.stem}" for path in HERE.parent.glob("*/test_*.py")}

    held = {row[0]: re.findall(r"`([a-z_/]+)`|\b(S)\b", row[-1]) for row in rows()}

    assert len(held) > 60
    assert [rule for rule, holders in held.items() if not holders] == []
    assert {name for holders in held.values() for name, _ in holders if name} <= files


def test_the_page_says_where_the_tests_are_that_it_names_without_a_folder() -> None:
    introduced = set(re.findall(r"`([a-z]+)`", PAGE.partition("are the files")[0]))

    holders = {name for row in rows() for name in re.findall(r"`([a-z_]+)`", row[-1])}

    assert holders - introduced == set()


def test_the_page_names_every_message() -> None:
    roads = (FromLauncher, FromMemberBody, ToLauncher, ToMemberBody)
    messages: list[type[Message]] = [each for road in roads for each in road.__args__]
    messages += [Ask, Answer, Elected]

    assert [each.__name__ for each in messages if f"`{each.__name__}`" not in PAGE] == []


def test_the_page_names_every_mutant_and_no_other() -> None:
    lines = [line for line in PAGE.splitlines() if line.startswith("| ") and "S " in line]
    named = set(re.findall(r'"([^"]+)"', "\n".join(lines)))

    assert named == set(MUTANTS)
