"""What a launcher was told: one tree of frozen values, made once from flags and variables.

``dssync.flags`` fills it in and checks it; everything below trusts it. Durations are seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CommandKind = Literal["script", "module", "program"]
Stream = Literal["stdout", "stderr"]
ScheduleMode = Literal["grid", "pool", "cross", "allreduce"]
CommitMode = Literal["relaxed", "strict"]
Backend = Literal["auto", "gloo", "nccl"]
ArbiterKind = Literal["file", "static", "lease"]
Quorum = Literal["majority", "any"]


@dataclass(frozen=True)
class Command:
    """What each worker runs."""

    kind: CommandKind
    """A Python file, a Python module (``-m``) or any program (``--no-python``)."""
    target: str
    """The file, the module's dotted name or the program."""
    arguments: tuple[str, ...] = ()
    """Arguments after the target, untouched."""


@dataclass(frozen=True)
class LogSettings:
    """Where the workers' output goes."""

    directory: Path | None = None
    """Root of the log files; None when no stream is written to a file."""
    redirected: Mapping[int, frozenset[Stream]] = field(default_factory=dict)
    """Streams of each local rank that go to a file and not to the console."""
    teed: Mapping[int, frozenset[Stream]] = field(default_factory=dict)
    """Streams of each local rank that go to a file and to the console, with a prefix."""
    console_ranks: frozenset[int] | None = None
    """Local ranks that may write to the console; None means all."""


@dataclass(frozen=True)
class JobSettings:
    """Which job this is, and which of its pods."""

    run_id: str = "none"
    """Name of the run in log paths and in ``TORCHELASTIC_RUN_ID``."""
    name: str = ""
    """Name of the DSSyncJob; empty without one."""
    namespace: str = ""
    """Namespace of the DSSyncJob; empty without one."""
    uid: str = ""
    """Uid of the DSSyncJob; keys the arbiter's record."""
    slot: int = 0
    """Durable index of this pod in its job."""
    pod_uid: str = ""
    """Uid of this pod; empty outside Kubernetes."""
    node_name: str = ""
    """Node that the pod runs on; empty when unknown."""
    topology: str = ""
    """``zone/rack/node`` of this pod; empty when unknown."""


@dataclass(frozen=True)
class WorldSettings:
    """How many pods and workers take part; start values, the arbiter's record wins."""

    desired: int = 1
    """Pods wanted."""
    min: int = 1
    """Pods below which training is held."""
    max: int = 1
    """Pods above which none is admitted."""
    nproc_per_node: int = 1
    """Workers of this launcher."""
    join_window_seconds: float = 5.0
    """How long the first round waits for pods beyond ``min``."""


@dataclass(frozen=True)
class SyncSettings:
    """How workers average; defaults for what the script's ``GroupSync`` leaves open."""

    group_size: int = 4
    """Members of a group, at least 2."""
    every: int = 1
    """Optimizer steps between two rounds."""
    mode: ScheduleMode = "grid"
    """Schedule of groups."""
    commit: CommitMode = "relaxed"
    """When a member may apply a round's result."""
    backend: Backend = "auto"
    """Transport of the groups; auto takes NCCL where each worker's model is on a GPU of its own."""
    shares_gpus: bool = False
    """This launcher has more workers than GPUs."""
    seed: int = 0
    """Seed of the schedule and of the data's order."""
    average_optimizer_state: bool = False
    """Average the optimizer's state in every round, not only at a flush."""


@dataclass(frozen=True)
class ControlSettings:
    """How launchers find each other and how fast they notice a loss."""

    arbiter: ArbiterKind = "static"
    """Kind of the cell that decides who is coordinator."""
    arbiter_target: str = ""
    """Path, ``HOST:PORT`` or a Lease's name; empty: this launcher is the only one."""
    address: str = "127.0.0.1"
    """Address that this launcher and its workers bind to and publish; empty until it is found."""
    interface: str = ""
    """Network interface of the workers' groups; empty: the one that holds ``address``."""
    port: int = 0
    """Port that this launcher's control plane listens on; 0 lets the system choose."""
    token_file: Path | None = None
    """File with the job's shared secret; None: connections are not authenticated."""
    heartbeat_seconds: float = 0.25
    """Time between two heartbeats."""
    lease_seconds: float = 2.0
    """Silence after which a launcher counts as lost."""
    quorum: Quorum = "majority"
    """Whether a coordinator needs a recent look at the arbiter while launchers are missing."""


@dataclass(frozen=True)
class SupervisionSettings:
    """How this launcher treats its workers and itself."""

    max_restarts: int = 0
    """Restarts of each worker; siblings are never restarted with it."""
    restart_codes: frozenset[int] | None = None
    """Exit codes after which a worker is restarted; None means any."""
    role: str = "default"
    """Name of the workers in ``ROLE_NAME`` and in prefixes of console lines."""
    shutdown_timeout_seconds: float = 30.0
    """Time between SIGTERM and SIGKILL when workers are stopped."""
    drain_timeout_seconds: float = 30.0
    """Time that a drain may take."""
    hang_timeout_seconds: float = 600.0
    """Silence after which a benched worker is ended, and restarted if it has restarts left."""
    signals: tuple[str, ...] = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT")
    """Signals that start a drain; the second one ends it."""
    termination_log: Path | None = None
    """File that receives the verdict; None when nobody reads one."""
    metrics_port: int | None = None
    """Port of ``/metrics``; 0 lets the system choose, None means no endpoint."""


@dataclass(frozen=True)
class HistorySettings:
    """The membership history: kept, or played again."""

    view_log: Path | None = None
    """File that the history is appended to."""
    replay: Path | None = None
    """File of a history that is played again, in place of a job."""
    until: int | None = None
    """Last round that is played; None: all."""
    values: Path | None = None
    """Folder for the values of the members at the end of a replay."""


@dataclass(frozen=True)
class Settings:
    """Everything that ``dssync run`` was told."""

    command: Command
    """What each worker runs."""
    job: JobSettings = JobSettings()
    """Which job and pod this is."""
    world: WorldSettings = WorldSettings()
    """Numbers of pods and workers."""
    sync: SyncSettings = SyncSettings()
    """How workers average."""
    control: ControlSettings = ControlSettings()
    """How launchers find and lose each other."""
    supervision: SupervisionSettings = SupervisionSettings()
    """How workers are kept."""
    logs: LogSettings = LogSettings()
    """Where output goes."""
    history: HistorySettings = HistorySettings()
    """What is recorded and replayed."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables that the workers inherit, before their own are added."""
    notices: tuple[str, ...] = ()
    """Sentences for stderr about flags that were taken in another sense than torchrun's."""
