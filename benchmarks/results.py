"""What a benchmark has found: figures, ratios and bars, with the statistics behind them.

One format for all benchmarks, so that a table in the documentation, a plot and a check in CI read
the same file. Ratios carry an interval, because two medians alone do not tell whether a
difference is one.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

RESAMPLES: Final = 10_000
SEED: Final = 20_070_329


@dataclass(frozen=True)
class Figure:
    """Distribution of one metric of one subject in one case.

    Attributes:
        case: What was done, such as ``SIGKILL, 1 MB``.
        subject: Who it was done to, such as ``dssync`` or a peer.
        metric: What was measured.
        unit: Unit of the values.
        n: Number of measurements.
        p99: Nearest rank, so a value that was seen; the maximum below 100 measurements.
    """

    case: str
    subject: str
    metric: str
    unit: str
    n: int
    min: float
    median: float
    p99: float
    max: float


@dataclass(frozen=True)
class Ratio:
    """Median of ours divided by the median of the peer's, with its 95 % interval."""

    case: str
    metric: str
    ours: str
    peer: str
    ratio: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """A promise and whether it holds."""

    name: str
    bar: str
    value: float
    holds: bool


@dataclass(frozen=True)
class Report:
    """Everything that one benchmark has found.

    Attributes:
        name: Name of the benchmark, of its file and of its block in the documentation.
        command: Command that repeats it.
        machine: Processor, cores, memory and kernel.
        versions: Name to version of what was measured.
    """

    name: str
    command: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    figures: Sequence[Figure]
    ratios: Sequence[Ratio] = field(default_factory=tuple)
    bars: Sequence[Bar] = field(default_factory=tuple)


def figure(case: str, subject: str, metric: str, unit: str, samples: Sequence[float]) -> Figure:
    """Summarise measurements.

    Raises:
        ValueError: There is none, or one is not a finite number.
    """
    values = np.asarray(samples, dtype=float)
    if not values.size or not np.isfinite(values).all():
        raise ValueError(f"{case}, {subject}, {metric}: {samples} are no finite measurements")
    p99 = float(np.quantile(values, 0.99, method="inverted_cdf"))
    low, median, high = float(values.min()), float(np.median(values)), float(values.max())
    return Figure(case, subject, metric, unit, len(values), low, median, p99, high)


def ratio(
    case: str,
    metric: str,
    ours: tuple[str, Sequence[float]],
    peer: tuple[str, Sequence[float]],
    seed: int = SEED,
) -> Ratio:
    """Compare independent measurements: ratio of medians, percentile bootstrap.

    Args:
        case: What was done to both.
        metric: What was measured.
        ours: Our name and measurements.
        peer: The peer's name and measurements.
        seed: Seed of the resampling.
    """
    random = np.random.default_rng(seed)
    tops, bottoms = (_resampled_medians(np.asarray(each[1]), random) for each in (ours, peer))
    middle = float(np.median(ours[1]) / np.median(peer[1]))
    low, high = np.quantile(tops / bottoms, [0.025, 0.975])
    return Ratio(case, metric, ours[0], peer[0], middle, float(low), float(high))


def paired_ratio(
    case: str,
    metric: str,
    ours: tuple[str, Sequence[float]],
    peer: tuple[str, Sequence[float]],
    seed: int = SEED,
) -> Ratio:
    """Compare interleaved pairs: median of the ratios of pairs, percentile bootstrap.

    Noise that hits both halves of a pair cancels, which is why overheads are measured like this.

    Raises:
        ValueError: The two have different lengths.
    """
    pairs = np.divide(ours[1], peer[1])
    low, high = np.quantile(_resampled_medians(pairs, np.random.default_rng(seed)), [0.025, 0.975])
    return Ratio(case, metric, ours[0], peer[0], float(np.median(pairs)), float(low), float(high))


def _resampled_medians(
    values: "np.ndarray[tuple[int], np.dtype[np.float64]]", random: np.random.Generator
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    medians: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(
        random.choice(values, size=(RESAMPLES, len(values))), axis=1
    )
    return medians


def at_most(name: str, value: float, limit: float, unit: str) -> Bar:
    """Return the bar ``value <= limit``."""
    return Bar(name, f"≤ {limit:g} {unit}".rstrip(), value, value <= limit)


def at_least(name: str, value: float, limit: float, unit: str) -> Bar:
    """Return the bar ``value >= limit``."""
    return Bar(name, f"≥ {limit:g} {unit}".rstrip(), value, value >= limit)


def save(report: Report, folder: Path) -> Path:
    """Write ``NAME.json`` into a folder, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.name}.json"
    path.write_text(json.dumps(asdict(report), indent=1, allow_nan=False) + "\n")
    return path


def read(path: Path) -> Report:
    """Read what ``save`` wrote."""
    document = json.loads(path.read_bytes())
    parts = (("figures", Figure), ("ratios", Ratio), ("bars", Bar))
    found = {key: tuple(kind(**each) for each in document[key]) for key, kind in parts}
    return Report(**{**document, **found})
