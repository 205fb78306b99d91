"""When what happened in a run on the cluster: a table for people, JSON for the record."""

import json
import statistics
import time
from pathlib import Path
from typing import Any

from cluster.field import ROOT, Manifest, seconds_of

REPORT = ROOT / "build" / "e2e.json"


class Timeline:
    """Seconds from a first event to each later one, and what was measured several times.

    Times of the API have whole seconds, so what is derived from them is right to one second.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._start = time.time()
        self.events: dict[str, float] = {}
        self.measured: dict[str, list[float]] = {}

    def begin(self, event: str) -> None:
        """Start to count."""
        self._start = time.time()
        self.events[event] = 0.0

    def add(self, event: str, at: float | None = None) -> None:
        """Note that something has happened, now or at a time since 1970."""
        self.events[event] = round((at or time.time()) - self._start, 2)

    def add_pods(self, pods: list[Manifest]) -> None:
        """Note when the last of these pods was made, got its node, and started."""
        created = max(seconds_of(pod["metadata"]["creationTimestamp"]) for pod in pods)
        self.add("last pod created", created)
        bound = [
            seconds_of(condition["lastTransitionTime"])
            for pod in pods
            for condition in pod["status"]["conditions"]
            if condition["type"] == "PodScheduled"
        ]
        self.add("last pod scheduled", max(bound))
        states = [pod["status"]["containerStatuses"][0]["state"] for pod in pods]
        started = [state.get("running", state.get("terminated"))["startedAt"] for state in states]
        self.add("last container started", max(map(seconds_of, started)))

    def write(self, path: Path = REPORT) -> None:
        """Put it into the report of the run, beside those of other tests."""
        known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        events = dict(sorted(self.events.items(), key=lambda item: item[1]))
        known[self._name] = {"seconds": events, "measured_seconds": self.measured}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known, indent=1) + "\n")


def table(report: dict[str, Any]) -> str:
    """The report as a table for people."""
    rows = ["| Test | Event | Seconds |", "| --- | --- | --- |"]
    for test, found in report.items():
        name = test.removeprefix("test_").replace("_", " ")
        rows += [f"| {name} | {event} | {at:.1f} |" for event, at in found["seconds"].items()]
        for what, taken in found["measured_seconds"].items():
            said = f"p50 {statistics.median(taken):.2f}, max {max(taken):.2f}, n {len(taken)}"
            rows.append(f"| {name} | {what} | {said} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(json.loads(REPORT.read_text())))
