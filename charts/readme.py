"""Write what values.yaml says of each value into the chart's README and into the values' schema.

Run it by ``make chart``; tests compare its output with what is committed.
"""

import json
from pathlib import Path
from typing import Final

import yaml

CHART: Final = Path(__file__).parent / "dssync"
BEGIN: Final = "<!-- values -->"


def rows(lines: list[str]) -> list[tuple[str, str, str]]:
    """Key, default and comment of everything that has a comment of its own, groups as well."""
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


def _told() -> list[tuple[str, str, str]]:
    return rows((CHART / "values.yaml").read_text().splitlines())


def readme() -> str:
    """The whole README with a fresh table, of single values only."""
    head = (CHART / "README.md").read_text().split(BEGIN)[0]
    table = ["| Value | Default | Meaning |", "|---|---|---|"]
    told = _told()
    for key, default, comment in told:
        if not any(other.startswith(f"{key}.") for other, _, _ in told):
            table.append(f"| `{key}` | `{default}` | {comment} |")
    return f"{head}{BEGIN}\n\n" + "\n".join(table) + "\n"


def schema() -> str:
    """The whole schema of the values with fresh descriptions."""
    found = json.loads((CHART / "values.schema.json").read_text())
    for key, _, comment in _told():
        part = found
        for name in key.split("."):
            part = part["properties"][name]
        rest = {name: value for name, value in part.items() if name != "description"}
        part.clear()
        part.update({"description": comment, **rest})
    return json.dumps(found, indent=2) + "\n"


if __name__ == "__main__":
    (CHART / "README.md").write_text(readme())
    (CHART / "values.schema.json").write_text(schema())
