"""``docs/protocol.md`` names a test or a mutant for each rule; both must exist."""

import re
from pathlib import Path

from simulation.mutants import MUTANTS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/protocol.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    here = Path(__file__).parent
    jobs = here.parents[1] / "integration/job"
    sources = [path.read_text() for folder in (here, jobs) for path in folder.glob("test_*.py")]
    known = re.findall(r"def (test_\w+)", "\n".join(sources))

    named = re.findall(r"test_\w+?(?=_…)", PAGE)

    assert len(named) > 30
    assert [prefix for prefix in named if not any(name.startswith(prefix) for name in known)] == []


def test_the_page_names_every_mutant_and_no_other() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and "S " in line]
    named = set(re.findall(r'"([^"]+)"', "\n".join(rows)))

    assert named == set(MUTANTS)
