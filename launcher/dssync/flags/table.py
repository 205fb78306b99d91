"""The flags of ``dssync run``: torchrun's names and meanings, and a few of its own.

A flag of torchrun is either honoured or refused with a sentence. Each flag may also be given by
a variable: dssync's own from the contract, or ``PET_NAME`` as with torchrun.
"""

from dataclasses import dataclass
from typing import Final

from dssync import contract


@dataclass(frozen=True)
class Flag:
    """One option that takes a value."""

    name: str
    """Without the leading dashes; underscores are accepted in place of dashes."""
    metavar: str
    help: str
    default: str = ""
    """What it is when nobody says anything; empty means absent."""
    variable: str = ""
    """The variable that gives the value when the flag does not."""
    aliases: tuple[str, ...] = ()
    """Further spellings, with their dashes."""


FLAGS: Final = (
    Flag("nnodes", "N|MIN:MAX", "launchers wanted; training starts with MIN, wants MAX"),
    Flag(
        "nproc-per-node",
        "N|auto|gpu|cpu",
        "workers of this launcher",
        "1",
        contract.ENV_NPROC_PER_NODE,
    ),
    Flag("rdzv-backend", "static|c10d", "kind of rendezvous; c10d is taken as static", "static"),
    Flag("rdzv-endpoint", "HOST:PORT", "where the launcher with node rank 0 listens"),
    Flag("rdzv-id", "ID", "name of the run, used in log paths", "none", contract.ENV_JOB_NAME),
    Flag("rdzv-conf", "KEY=VALUE,...", "last_call_timeout sets the join window"),
    Flag("max-restarts", "N", "restarts of each worker", "0", contract.ENV_MAX_RESTARTS),
    Flag(
        "restart-codes",
        "CODE,...",
        "exit codes after which a worker is restarted; any when absent",
        variable=contract.ENV_RESTART_CODES,
    ),
    Flag("monitor-interval", "SECONDS", "accepted; exits are noticed at once"),
    Flag("role", "NAME", "name of the workers in prefixes and in ROLE_NAME", "default"),
    Flag("log-dir", "DIR", "root of the log files"),
    Flag(
        "redirects",
        "N|RANK:N,...",
        "streams to files: 1 stdout, 2 stderr, 3 both",
        "0",
        "",
        ("-r",),
    ),
    Flag("tee", "N|RANK:N,...", "streams to files and to the console", "0", "", ("-t",)),
    Flag("local-ranks-filter", "RANK,...", "local ranks that may write to the console"),
    Flag(
        "signals-to-handle",
        "NAME,...",
        "signals that start a drain",
        "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
    ),
    Flag(
        "shutdown-timeout",
        "SECONDS",
        "time between SIGTERM and SIGKILL",
        "30",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT",
    ),
    Flag("node-rank", "N", "as --slot"),
    Flag("master-addr", "HOST", "host of node rank 0, without --rdzv-endpoint"),
    Flag("master-port", "PORT", "port on it"),
    Flag(
        "local-addr",
        "ADDRESS",
        "address to bind to and to publish; with --rdzv-endpoint, unless given, the one towards it",
        "127.0.0.1",
        contract.ENV_POD_IP,
    ),
    Flag(
        "interface",
        "NAME",
        "network interface of the groups, in place of the address",
        "",
        contract.ENV_INTERFACE,
    ),
    Flag("slot", "N", "durable index of this launcher in its job", "", contract.ENV_SLOT),
    Flag("group-size", "N", "members that average with each other", "4", contract.ENV_GROUP_SIZE),
    Flag(
        "every",
        "STEPS",
        "optimizer steps between two rounds",
        "1",
        contract.ENV_EVERY,
        ("--sync-every", "--sync_every"),
    ),
    Flag("mode", "|".join(contract.MODES), "schedule of groups", "grid", contract.ENV_MODE),
    Flag(
        "commit", "relaxed|strict", "when a round's result applies", "relaxed", contract.ENV_COMMIT
    ),
    Flag("backend", "auto|gloo|nccl", "transport of the groups", "auto", contract.ENV_BACKEND),
    Flag(
        "average-optimizer-state",
        "0|1",
        "1 averages the optimizer's state in every round, 0 only at a flush",
        "0",
        contract.ENV_AVERAGE_OPTIMIZER_STATE,
    ),
    Flag("seed", "N", "seed of schedule and data order", "0", contract.ENV_SEED),
    Flag(
        "lease",
        "SECONDS",
        "silence after which a launcher is lost",
        "2",
        contract.ENV_LEASE_MILLISECONDS,
    ),
    Flag(
        "quorum",
        "majority|any",
        "whether a coordinator waits for the arbiter while launchers are missing",
        "majority",
        contract.ENV_QUORUM,
    ),
    Flag(
        "heartbeat",
        "SECONDS",
        "time between heartbeats",
        "0.25",
        contract.ENV_HEARTBEAT_MILLISECONDS,
    ),
    Flag(
        "join-window",
        "SECONDS",
        "how long round 0 waits for more than MIN; 0 not at all",
        "5",
        contract.ENV_JOIN_WINDOW_SECONDS,
    ),
    Flag(
        "drain-timeout",
        "SECONDS",
        "time that a drain may take; 0 leaves at once",
        "30",
        contract.ENV_DRAIN_TIMEOUT_SECONDS,
    ),
    Flag(
        "hang-timeout",
        "SECONDS",
        "silence after which a worker that was benched is restarted",
        "600",
        contract.ENV_HANG_TIMEOUT_SECONDS,
    ),
    Flag(
        "metrics-port",
        "PORT",
        "port of /metrics, 0 chooses one; none without it",
        "",
        contract.ENV_METRICS_PORT,
    ),
    Flag("token-file", "FILE", "file with the job's secret", "", contract.ENV_TOKEN_FILE),
    Flag(
        "arbiter",
        "file:PATH|static:HOST:PORT|lease:NAME",
        "who is coordinator",
        "",
        contract.ENV_ARBITER,
    ),
    Flag("view-log", "FILE", "append the membership history to a file"),
    Flag("replay", "FILE", "play a recorded history again, on this machine"),
    Flag("until", "ROUND", "last round of a replay"),
    Flag("replay-out", "DIR", "where a replay leaves its members' values; FILE.replayed without"),
)

SWITCHES: Final = {
    "standalone": "one launcher on a free port, nothing else needed",
    "module": "the script is a module's name, as with python -m",
    "no-python": "the script is any program",
    "run-path": "accepted: scripts always run inside the warm interpreter",
}

REFUSED: Final = {
    "start-method": "workers always come from dssync's own fork-server",
    "event-log-handler": "read the metrics endpoint instead",
    "logs-specs": "only --log-dir, --redirects and --tee decide about logs",
    "log-line-prefix-template": "the prefix of a line is always [ROLE LOCAL_RANK]:",
    "duplicate-stdout-filters": "filter the files below --log-dir instead",
    "duplicate-stderr-filters": "filter the files below --log-dir instead",
    "virtual-local-rank": "choose the device from LOCAL_RANK",
    "numa-binding": "start dssync under numactl instead",
    "print-completion": "there are no shell completions yet",
    "schedule": "say --mode",
    "pool-size": "the pool's size follows from the number of members",
    "hot-spares": "spare workers are not implemented",
}
"""Flags that are known and not offered, and what to do instead."""
