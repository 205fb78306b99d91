"""The series that a launcher exposes: names, labels and what the labels may say.

A fixed table, because workers push their measurements by name: whatever is not listed is
refused, so that no script can make the number of series grow. Rounds, members and epochs are
never labels.
"""

from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

ROUND_BUCKETS: Final = tuple(0.0005 * 2**k for k in range(18))
"""0.5 ms to 65.5 s, doubling: what a round and its parts take."""
EVENT_BUCKETS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Seconds of what happens now and then."""

LOSS_CAUSES: Final = "exit eof lease deadline leave interrupt nan failed replaced drain"
"""Why a group has to try a round again."""

_WORKER: Final = {"local_rank": None}


@dataclass(frozen=True)
class Series:
    """One metric."""

    name: str
    kind: Kind
    help: str
    labels: dict[str, frozenset[str] | None] = field(default_factory=dict)
    """Values that each label may take; None means decimal digits."""
    buckets: tuple[float, ...] = ()


def _label(name: str, values: str) -> dict[str, frozenset[str] | None]:
    return {name: frozenset(values.split())}


SERIES: Final = (
    Series(
        "dssync_sync_duration_seconds",
        "histogram",
        "Wall time of a round.",
        buckets=ROUND_BUCKETS,
    ),
    Series(
        "dssync_sync_phase_duration_seconds",
        "histogram",
        "Time of one part of a round.",
        _label("phase", "assign build stage allreduce commit apply"),
        ROUND_BUCKETS,
    ),
    Series(
        "dssync_heartbeat_rtt_seconds",
        "histogram",
        "Time until the coordinator answered a heartbeat.",
        buckets=ROUND_BUCKETS,
    ),
    Series(
        "dssync_reform_duration_seconds",
        "histogram",
        "Time from the evidence of a loss to the commit of the hit round.",
        _label("cause", LOSS_CAUSES),
        EVENT_BUCKETS,
    ),
    Series(
        "dssync_join_duration_seconds",
        "histogram",
        "Time of one part of a join.",
        _label("phase", "state admit first_round"),
        EVENT_BUCKETS,
    ),
    Series(
        "dssync_checkpoint_duration_seconds",
        "histogram",
        "Time of one part of a checkpoint; the copy (stage) holds training up, and the list does "
        "where it outlasts the sum of the round.",
        _label("phase", "list stage write"),
        EVENT_BUCKETS,
    ),
    Series(
        "dssync_drain_duration_seconds",
        "histogram",
        "Time from the announcement of a leave to the end of the workers.",
        buckets=EVENT_BUCKETS,
    ),
    Series(
        "dssync_sync_rounds_total",
        "counter",
        "Rounds, by how they ended for a worker.",
        _label("result", "committed retried skipped solo"),
    ),
    Series("dssync_sync_bytes_total", "counter", "Bytes that were averaged."),
    Series(
        "dssync_membership_changes_total",
        "counter",
        "Changes of the view.",
        _label("kind", "join leave evict restart"),
    ),
    Series(
        "dssync_communicator_cache_hits_total",
        "counter",
        "Rounds whose communicator was at hand.",
    ),
    Series(
        "dssync_communicator_cache_misses_total",
        "counter",
        "Rounds whose communicator had to be built.",
    ),
    Series(
        "dssync_communicator_builds_total",
        "counter",
        "Builds of communicators.",
        _label("result", "built failed cancelled"),
    ),
    Series(
        "dssync_operations_abandoned_total",
        "counter",
        "Collective operations left to the reaper.",
    ),
    Series(
        "dssync_aborts_hung_total",
        "counter",
        "Aborts of communicators that did not end; the worker started anew.",
    ),
    Series(
        "dssync_state_transfer_bytes_total",
        "counter",
        "Bytes of training state between donors and joiners.",
        _label("direction", "sent received"),
    ),
    Series(
        "dssync_connections_refused_total",
        "counter",
        "Peers that did not hold the job's token.",
    ),
    Series("dssync_worker_restarts_total", "counter", "Workers that were started again."),
    Series(
        "dssync_members",
        "gauge",
        "Members as the coordinator sees them.",
        _label("state", "active joining draining suspect benched"),
    ),
    Series("dssync_view_sequence", "gauge", "Sequence of the current view."),
    Series("dssync_coordinator_leader", "gauge", "1 on the launcher that coordinates, else 0."),
    Series(
        "dssync_last_checkpoint_timestamp_seconds",
        "gauge",
        "When the worker last published a checkpoint, as Unix time.",
        dict(_WORKER),
    ),
    Series("dssync_round", "gauge", "Last round that the worker committed.", dict(_WORKER)),
    Series("dssync_group_size", "gauge", "Members of the worker's last group.", dict(_WORKER)),
    Series("dssync_communicators", "gauge", "Communicators that the worker keeps.", dict(_WORKER)),
    Series(
        "dssync_reaper_pending",
        "gauge",
        "Abandoned operations that the worker's reaper still holds.",
        dict(_WORKER),
    ),
)
