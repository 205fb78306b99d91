"""Every series that the operator exports, with its meaning, in one registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Metrics:
    """The operator's series. None carries the name of a job, whose number has no bound."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconcile_seconds = self._histogram("reconcile_seconds", "Time of one look at one job")
        self.reconcile_errors = self._counter(
            "reconcile_errors", "Looks that failed and are repeated", "kind"
        )
        self.queue_depth = self._gauge("queue_depth", "Jobs that wait to be looked at")
        self.queue_wait_seconds = self._histogram(
            "queue_wait_seconds", "Time from the first reason to look at a job to the look"
        )
        self.api_requests = self._counter(
            "api_requests", "Requests to the API server", "verb", "code"
        )
        self.api_throttle_seconds = self._counter(
            "api_throttle_seconds", "Time spent waiting because the API server or our limit asked"
        )
        self.watch_restarts = self._counter(
            "watch_restarts", "Watches that were started anew", "kind"
        )
        self.watch_age_seconds = self._gauge(
            "watch_age_seconds",
            "Time since the last event or bookmark of a watch; for jobs, time for which a LIST has "
            "shown what the watch has not told",
            "kind",
        )
        self.jobs = self._gauge("jobs", "Jobs by state", "state")
        self.state_since = self._gauge(
            "state_since_timestamp_seconds",
            "When the job that is in a state for longest has come into it",
            "state",
        )
        self.pod_create_seconds = self._histogram("pod_create_seconds", "Time of one pod creation")
        self.replacement_seconds = self._histogram(
            "replacement_seconds", "Time to make the pods that replace lost ones of one job"
        )
        self.time_to_running_seconds = self._histogram(
            "time_to_running_seconds", "Time from the start of a job to its first world"
        )
        self.leader = self._gauge("leader", "1 while this replica acts, else 0")

    def exposition(self) -> bytes:
        """All series in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, text: str) -> Histogram:
        return Histogram(f"dssync_operator_{name}", text, buckets=_SECONDS, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"dssync_operator_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"dssync_operator_{name}", text, labels, registry=self.registry)
