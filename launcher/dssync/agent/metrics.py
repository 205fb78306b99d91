"""A launcher's registry: its own measurements, and the deltas that its workers push.

prometheus-client's multi-process mode is not used: it needs a directory that outlives crashes,
and offers neither info metrics nor custom collectors.
"""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from dssync.agent.series import SERIES, Series
from dssync.control.measurements import Amount, Delta, Observed
from dssync.errors import ProtocolError

Labels = Mapping[str, str]
_TABLE: Final = {series.name: series for series in SERIES}
_Child = Counter | Gauge | Histogram
_Kind = TypeVar("_Kind", Counter, Gauge, Histogram)


class Metrics:
    """The series of one launcher, in a registry of their own."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        """What the endpoint exposes."""
        self._metrics = {series.name: _create(series, self.registry) for series in SERIES}
        self._children: dict[tuple[object, ...], _Child] = {}
        Info("dssync_build", "Version of dssync.", registry=self.registry).info(
            {"version": version("dssync")}
        )

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add one value to a histogram."""
        self.apply(Delta(observed=(Observed(name, labels, (value,)),)))

    def increment(self, name: str, amount: float = 1, **labels: str) -> None:
        """Raise a counter."""
        self.apply(Delta(raised=(Amount(name, labels, amount),)))

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self.apply(Delta(shown=(Amount(name, labels, value),)))

    def apply(self, delta: Delta) -> None:
        """Merge what a worker pushed: all of it, or nothing.

        Raises:
            ProtocolError: A name, label or value is not in the table of series.
        """
        observed = [(self._child(each, Histogram), each.values) for each in delta.observed]
        raised = [(self._child(each, Counter), _not_negative(each)) for each in delta.raised]
        shown = [(self._child(each, Gauge), each.value) for each in delta.shown]
        for histogram, values in observed:
            for value in values:
                histogram.observe(value)
        for counter, amount in raised:
            counter.inc(amount)
        for gauge, value in shown:
            gauge.set(value)

    def membership_changed(self, kind: str) -> None:
        """Count a change of the view: join, leave, evict or restart."""
        self.increment("dssync_membership_changes_total", kind=kind)

    def worker_restarted(self) -> None:
        """Count a worker that was started again."""
        self.increment("dssync_worker_restarts_total")

    def reformed(self, cause: str, seconds: float) -> None:
        """Record how long it took from a loss to the commit of the hit round."""
        self.observe("dssync_reform_duration_seconds", seconds, cause=cause)

    def _child(self, entry: Observed | Amount, kind: type[_Kind]) -> _Kind:
        """Return the series of an entry, checked when it is first seen."""
        key = (entry.name, *entry.labels.items())
        child = self._children.get(key)
        if child is None:
            _check(entry.name, entry.labels)
            metric = self._metrics[entry.name]
            child = self._children[key] = metric.labels(**entry.labels) if entry.labels else metric
        if not isinstance(child, kind):
            raise ProtocolError(f"series {entry.name!r} is no {kind.__name__}: see agent/series.py")
        return child


def _create(series: Series, registry: CollectorRegistry) -> Counter | Gauge | Histogram:
    labels = tuple(series.labels)
    if series.kind == "histogram":
        return Histogram(
            series.name, series.help, labels, buckets=series.buckets, registry=registry
        )
    kind = Counter if series.kind == "counter" else Gauge
    return kind(series.name, series.help, labels, registry=registry)


def _check(name: str, labels: Labels) -> None:
    series = _TABLE.get(name)
    if series is None:
        raise ProtocolError(f"series {name!r} is refused: see agent/series.py")
    if labels.keys() != series.labels.keys():
        raise ProtocolError(f"{name} has labels {list(series.labels)}, not {list(labels)}")
    for label, said in labels.items():
        if not _allowed(series.labels[label], said):
            raise ProtocolError(f"{name}: {said!r} is no value of label {label!r}")


def _not_negative(entry: Amount) -> float:
    if not entry.value >= 0:
        raise ProtocolError(f"{entry.name} cannot rise by {entry.value!r}: counters only grow")
    return entry.value


def _allowed(values: frozenset[str] | None, said: str) -> bool:
    if values is None:
        return said.isascii() and said.isdigit() and len(said) <= 4
    return said in values
