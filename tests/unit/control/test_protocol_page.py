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


def file_of(holder: str) -> Path:
    """Return the file of tests that the page means by a name."""
    folder, _, name = holder.rpartition("/")
    if not folder:
        return HERE / f"test_{name}.py"
    return {"job": JOBS, "simulation": SIMULATED}.get(folder, HERE.parent / folder) / f"{name}.py"


def named_tests(cell: str) -> list[tuple[str, str]]:
    """Return the tests that a cell names, each with the file that it stands after.

    A name with an ellipsis ends in an underscore here.
    """
    found, holder = [], ""
    for file, test in re.findall(r"`([a-z_/]+)`|\b(test_\w+)", cell):
        holder = file or holder
        found += [(holder, test)] if test else []
    return found


def is_in(holder: str, test: str) -> bool:
    """Tell whether a file has a test of this name, or one that begins so and goes on."""
    known = re.findall(r"^(?:async )?def (test_\w+)", file_of(holder).read_text(), re.M)
    return test in known or (test.endswith("_") and any(x.startswith(test) for x in known))


def test_every_test_that_the_page_names_is_in_the_file_that_it_names() -> None:
    named = [each for row in rows() for each in named_tests(row[-1])]

    assert len(named) > 30
    assert [each for each in named if not is_in(*each)] == []


def test_every_rule_names_a_file_of_tests_or_the_simulator() -> None:
    held = {row[0]: re.findall(r"`([a-z_/]+)`|\b(S)\b", row[-1]) for row in rows()}

    assert len(held) > 60
    assert [rule for rule, holders in held.items() if not holders] == []
    named = {name for holders in held.values() for name, _ in holders if name}
    assert {name for name in named if not file_of(name).exists()} == set()


def test_no_rule_is_held_by_seeds_alone() -> None:
    rest = {row[0]: re.sub(r"\bS, every seed\b", "", row[-1]) for row in rows()}

    assert [rule for rule, holders in rest.items() if not holders] == []


def test_a_test_is_looked_for_where_the_page_says() -> None:
    cell = '`rounds`: test_weights_…, test_a_loss_gives; `job/test_kills`; S "keeps the term"'

    assert named_tests(cell) == [("rounds", "test_weights_"), ("rounds", "test_a_loss_gives")]
    assert [is_in(*each) for each in named_tests(cell)] == [True, False]
    assert not is_in("member", "test_weights_")


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
