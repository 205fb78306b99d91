"""Write the table of values into the chart's README, from the comments of values.yaml.

Run it by ``make chart``; a test compares its output with what is committed.
"""

import json
from pathlib import Path
from typing import Final

import yaml

CHART: Final = Path(__file__).parent / "dssync"
BEGIN: Final = "<!-- values -->"


def rows(lines: list[str]) -> list[tuple[str, str, str]]:
    """Key, default and comment of every value that has a comment of its own."""
    values = yaml.safe_load("\n".join(lines))
    found, comment = [], ""
    path: list[tuple[int, str]] = []
    for line in lines:
        stripped = line.strip()
        if stripped.startswith("#"):
            comment = stripped.lstrip("# ")
            continue
        key, colon, _ = stripped.partition(":")
        if colon and not stripped.startswith("-"):
            indent = len(line) - len(line.lstrip())
            path = [part for part in path if part[0] < indent] + [(indent, key)]
            if comment:
                names = [name for _, name in path]
                found.append((".".join(names), _default(values, names), comment))
        comment = ""
    return found


def _default(values: object, names: list[str]) -> str:
    for name in names:
        values = values[name] if isinstance(values, dict) else None
    return json.dumps(values)


def readme() -> str:
    """The whole README with a fresh table."""
    head = (CHART / "README.md").read_text().split(BEGIN)[0]
    table = ["| Value | Default | Meaning |", "|---|---|---|"]
    for key, default, comment in rows((CHART / "values.yaml").read_text().splitlines()):
        table.append(f"| `{key}` | `{default}` | {comment} |")
    return f"{head}{BEGIN}\n\n" + "\n".join(table) + "\n"


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
