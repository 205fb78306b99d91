"""A launcher's registry: its own measurements, and the deltas that its workers push.

prometheus-client's multi-process mode is not used: it needs a directory that outlives crashes,
and offers neither info metrics nor custom collectors.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from dssync.agent.series import SERIES, Series
from dssync.errors import ProtocolError

Labels = Mapping[str, str]
_METHODS: Final = {"observe": "histogram", "inc": "counter", "set": "gauge"}
_TABLE: Final = {series.name: series for series in SERIES}
_Entry = tuple[Series, dict[str, str], float]


class Metrics:
    """The series of one launcher, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        """What the endpoint exposes."""
        self._metrics = {series.name: _create(series, self.registry) for series in SERIES}
        Info("dssync_build", "Version of dssync.", registry=self.registry).info(
            {"version": version("dssync")}
        )

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a histogram."""
        self._record(_entry("observe", name, labels, value))

    def increment(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter."""
        self._record(_entry("inc", name, labels, amount))

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._record(_entry("set", name, labels, value))

    def apply(self, delta: object) -> None:
        """Merge what a worker pushed: all of it, or nothing.

        Args:
            delta: ``{"observe": [[name, labels, value], ...], "inc": ..., "set": ...}``, each
                part optional.

        Raises:
            ProtocolError: A name, label or value is not in the table of series.
        """
        if not isinstance(delta, dict):
            raise ProtocolError(f"metrics delta is {delta!r}, expected an object")
        entries = [entry for method, rows in delta.items() for entry in _entries(method, rows)]
        for entry in entries:
            self._record(entry)

    def membership_changed(self, kind: str) -> None:
        """Count a change of the view: join, leave, evict or restart."""
        self.increment("dssync_membership_changes_total", kind=kind)

    def worker_restarted(self) -> None:
        """Count a worker that was started again."""
        self.increment("dssync_worker_restarts_total")

    def reformed(self, cause: str, seconds: float) -> None:
        """Record how long it took from a loss to the commit of the hit round."""
        self.observe("dssync_reform_duration_seconds", seconds, cause=cause)

    def _record(self, entry: _Entry) -> None:
        series, labels, value = entry
        metric = self._metrics[series.name]
        child = metric.labels(**labels) if labels else metric
        if isinstance(child, Histogram):
            child.observe(value)
        elif isinstance(child, Counter):
            child.inc(value)
        else:
            child.set(value)


def _create(series: Series, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = tuple(series.labels)
    if series.kind == "histogram":
        return Histogram(
            series.name, series.help, labels, buckets=series.buckets, registry=registry
        )
    kind = Counter if series.kind == "counter" else Gauge
    return kind(series.name, series.help, labels, registry=registry)


def _entries(method: object, rows: object) -> list[_Entry]:
    if not isinstance(rows, list):
        raise ProtocolError(f"metrics delta {method!r} is {rows!r}, expected a list")
    entries = []
    for row in rows:
        match row:
            case [str(name), dict(labels), int() | float() as value]:
                entries.append(_entry(str(method), name, labels, value))
            case _:
                raise ProtocolError(
                    f"metrics delta {method!r} has {row!r}, expected [name, labels, number]"
                )
    return entries


def _entry(method: str, name: str, labels: Labels, value: float) -> _Entry:
    series = _TABLE.get(name)
    if series is None or series.kind != _METHODS.get(method):
        raise ProtocolError(f"{method!r} of series {name!r} is refused: see agent/series.py")
    if labels.keys() != series.labels.keys():
        raise ProtocolError(f"{name} has labels {list(series.labels)}, not {list(labels)}")
    for label, said in labels.items():
        if not _allowed(series.labels[label], said):
            raise ProtocolError(f"{name}: {said!r} is no value of label {label!r}")
    if series.kind == "counter" and not value >= 0:
        raise ProtocolError(f"{name} cannot be raised by {value!r}: counters only grow")
    return series, dict(labels), float(value)


def _allowed(values: frozenset[str] | None, said: object) -> bool:
    if not isinstance(said, str):
        return False
    if values is None:
        return said.isascii() and said.isdigit() and len(said) <= 4
    return said in values
