"""Shows a report: as a table on the console, in ``docs/benchmarks.md`` and as plots."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import matplotlib

from benchmarks.results import Report, save

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT: Final = Path(__file__).parents[1]
OUTPUT: Final = ROOT / "build" / "bench"
PAGE: Final = ROOT / "docs" / "benchmarks.md"


def show(report: Report, output: Path = OUTPUT) -> None:
    """Save a report and print it, as is right for a short form, whose figures say little."""
    print(markdown(report))
    print(f"written to {save(report, output)}")


def publish(report: Report, page: Path = PAGE, output: Path = OUTPUT) -> None:
    """Show a report and rewrite its block of the page."""
    show(report, output)
    former = page.read_text() if page.exists() else ""
    page.write_text(with_block(former, report.name, markdown(report)))
    print(f"and to {page}")


def markdown(report: Report) -> str:
    """Return the report as tables with all that is needed to repeat it."""
    figures = [
        (f.case, f.subject, f.metric, f.unit, f.n, *map(_number, (f.min, f.median, f.p99, f.max)))
        for f in report.figures
    ]
    ratios = [
        (r.case, r.metric, f"{r.ours} / {r.peer}", _number(r.ratio), _interval(r.low, r.high))
        for r in report.ratios
    ]
    bars = [(b.name, b.bar, _number(b.value), "yes" if b.holds else "**no**") for b in report.bars]
    parts = (
        _table("Case | Subject | Metric | Unit | n | min | median | p99 | max", figures),
        _table("Case | Metric | Ratio of medians | Value | 95 % interval", ratios),
        _table("Promise | Bar | Value | Holds", bars),
        f"`{report.command}` on {_pairs(report.machine)}; {_pairs(report.versions)}.",
    )
    return "\n\n".join(part for part in parts if part)


def with_block(page: str, name: str, text: str) -> str:
    """Return a page whose block of that name holds the text; a missing one is added at the end."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    block = f"{begin}\n{text}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(page):
        return pattern.sub(lambda _: block, page)
    return f"{page or '# Benchmarks' + chr(10)}\n## {name}\n\n{block}\n"


def machine() -> Mapping[str, str]:
    """Describe this machine as far as figures depend on it."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model.group(1) if model else platform.machine(),
        "cores": str(len(os.sched_getaffinity(0))),
        "memory": f"{memory:.0f} GiB",
        "kernel": platform.release(),
    }


def versions(*packages: str) -> Mapping[str, str]:
    """Return the versions of Python, of packages and of this repository."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True
    )
    found = {"python": platform.python_version()} | {name: version(name) for name in packages}
    return found | ({"commit": commit.stdout.strip()} if commit.returncode == 0 else {})


def plot_distributions(
    path: Path, title: str, unit: str, samples: Mapping[str, Sequence[float]]
) -> None:
    """Draw the share of measurements up to each value, one curve for each subject, as SVG."""
    matplotlib.rcParams["svg.hashsalt"] = title  # the same figures give the same file
    drawing, axes = pyplot.subplots(figsize=(7, 4))
    for subject, values in samples.items():
        axes.ecdf(values, label=f"{subject} (n = {len(values)})")
    axes.set(title=title, xscale="log", xlabel=unit, ylabel="share of measurements")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(drawing)


def _table(head: str, rows: Sequence[Sequence[object]]) -> str:
    if not rows:
        return ""
    rule = " | ".join("---" for _ in head.split(" | "))
    lines = [head, rule, *(" | ".join(map(str, row)) for row in rows)]
    return "\n".join(f"| {line} |" for line in lines)


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _interval(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}"


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
