"""Everything about the operator that can be set, read from the environment in one place."""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Final

from dssync_operator.errors import SettingsError
from dssync_operator.job import WorkerRbac

PREFIX: Final = "DSSYNC_OPERATOR_"
MARGIN: Final = 0.8
"""Part of the Lease's time after which a leader that cannot renew gives up."""
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


@dataclass(frozen=True)
class Settings:
    """Settings of one operator process. ``qps`` is ``DSSYNC_OPERATOR_QPS``, and so on."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to watch; none means all."""
    lease_namespace: str = ""
    """Namespace of the Lease by which replicas choose a leader; by default the operator's own."""
    lease_name: str = "dssync-operator"
    lease_seconds: float = 10.0
    """A leader that was silent for this long is replaced."""
    renew_seconds: float = 2.5
    """How often the leader renews; at most two fifths of ``lease_seconds``."""
    poll_seconds: float = 0.5
    """How often a standby looks at the Lease."""
    identity: str = ""
    """Name of this replica; by default its host name and process id."""
    workers: int = 16
    """Jobs that are reconciled at the same time."""
    qps: float = 500.0
    """Pod creations a second, in the long run."""
    burst: int = 1000
    """Pod creations that may come at once."""
    concurrency: int = 64
    """Pod creations in flight, shared by the jobs that have pods made, and deletions likewise."""
    resync_seconds: float = 300.0
    """How often every job is looked at, and its children verified, though nothing moved."""
    coalesce_seconds: float = 0.1
    """Shortest time between two looks at one job."""
    progress_seconds: float = 60.0
    """Shortest time between two status writes that change nothing but the progress."""
    stale_seconds: float = 150.0
    """A watch without event or bookmark for this long is broken; bookmarks come every minute."""
    port: int = 8080
    """Port of /metrics, /healthz and /readyz."""
    tls_folder: str = ""
    """Folder with tls.crt and tls.key, by which all three are served; plain HTTP without."""
    metrics_authentication: bool = False
    """Whether /metrics is for those only whom the API server lets read it."""
    topology_keys: tuple[str, ...] = ()
    """Node labels from the outermost level inwards; none means the operator reads no nodes."""
    worker_rbac: WorkerRbac = WorkerRbac.PER_JOB
    """Who gives the workers their right on the job's Lease: PerJob, Namespace or None."""
    network_policy: bool = False
    """Whether each job gets a NetworkPolicy that limits its data sockets to its own pods."""
    log_level: str = "INFO"
    log_format: str = "json"
    """json or plain."""

    @property
    def connections(self) -> int:
        """Connections that it takes: a watch keeps its own for good, other requests may queue."""
        looks, watches = 4 * self.workers, 2 * max(1, len(self.namespaces))
        return 2 * self.concurrency + looks + watches


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:
        SettingsError: A variable has a value of the wrong kind or one that cannot work, or no such
            setting exists.
    """
    known = {PREFIX + field.name.upper(): field for field in fields(Settings)}
    given: dict[str, object] = {}
    for variable, value in environment.items():
        if not variable.startswith(PREFIX):
            continue
        if variable not in known:
            raise SettingsError(f"{variable} is no setting; known are {', '.join(sorted(known))}")
        field = known[variable]
        default = field.default if field.default is not MISSING else ""
        given[field.name] = _convert(variable, value, default)
    given.setdefault("lease_namespace", _own_namespace())
    given.setdefault("identity", f"{os.uname().nodename}-{os.getpid()}")
    settings = Settings(**given)  # type: ignore[arg-type]  # _convert returns the default's type
    _check_lease(settings)
    return settings


def _check_lease(settings: Settings) -> None:
    """A renewal waits and may then take as long again, before the leader gives up."""
    most = MARGIN * settings.lease_seconds / 2
    if settings.renew_seconds > most:
        raise SettingsError(
            f"{PREFIX}RENEW_SECONDS is {settings.renew_seconds:g}; expected at most two fifths of "
            f"{PREFIX}LEASE_SECONDS of {settings.lease_seconds:g}, that is {most:g}"
        )


def _convert(variable: str, value: str, default: object) -> object:
    if isinstance(default, bool):
        if value not in ("true", "false"):
            raise SettingsError(f"{variable} is {value!r}; expected true or false")
        return value == "true"
    if isinstance(default, tuple):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    if isinstance(default, WorkerRbac):
        return _choose(variable, value)
    if not isinstance(default, int | float):
        return value
    try:
        number = type(default)(value)
    except ValueError:
        raise SettingsError(f"{variable} is {value!r}; expected a number") from None
    if number <= 0:
        raise SettingsError(f"{variable} is {value!r}; expected more than 0")
    return number


def _choose(variable: str, value: str) -> WorkerRbac:
    try:
        return WorkerRbac(value)
    except ValueError:
        *others, last = WorkerRbac
        expected = f"{', '.join(others)} or {last}"
        raise SettingsError(f"{variable} is {value!r}; expected {expected}") from None


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text().strip() if _NAMESPACE_FILE.is_file() else "default"
