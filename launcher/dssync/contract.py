"""Names that the operator, the launcher and ``dssync local`` share, written once.

The operator sets these variables on pods, ``dssync local`` sets the same ones on the processes
that stand for pods, and the launcher reads them. Nothing else in the project spells them out.
Imports nothing of the project, so that the operator can use it without anything of the launcher.
"""

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping
from typing import Final

GROUP: Final = "dssync.io"
VERSION: Final = "v1alpha1"
KIND: Final = "DSSyncJob"
PLURAL: Final = "dssyncjobs"

MODES: Final = ("grid", "pool", "cross", "allreduce")
"""What a job may choose as ``sync.mode``. The schedule has ``stream`` as well, which averages racks
with each other only in late rounds; those do not exist yet."""

# --- Variables of a pod. Flags of ``dssync run`` win over them. -----------------------------
ENV_JOB_NAME: Final = "DSSYNC_JOB_NAME"
ENV_JOB_NAMESPACE: Final = "DSSYNC_JOB_NAMESPACE"
ENV_JOB_UID: Final = "DSSYNC_JOB_UID"
ENV_SLOT: Final = "DSSYNC_SLOT"
"""Durable index of the pod in its job, from 0."""
ENV_POD_UID: Final = "DSSYNC_POD_UID"
ENV_POD_IP: Final = "DSSYNC_POD_IP"
"""Address that transports bind to and publish."""
ENV_NODE_NAME: Final = "DSSYNC_NODE_NAME"
ENV_TOPOLOGY: Final = "DSSYNC_TOPOLOGY"
"""``zone/rack/node`` of this pod; wins over what the arbiter's record says of the node."""
ENV_DESIRED: Final = "DSSYNC_DESIRED"
"""Start value of the pods wanted; the arbiter's record wins once it has one."""
ENV_MIN: Final = "DSSYNC_MIN"
ENV_MAX: Final = "DSSYNC_MAX"
ENV_NPROC_PER_NODE: Final = "DSSYNC_NPROC_PER_NODE"
ENV_GROUP_SIZE: Final = "DSSYNC_GROUP_SIZE"
ENV_EVERY: Final = "DSSYNC_EVERY"
ENV_MODE: Final = "DSSYNC_MODE"
ENV_COMMIT: Final = "DSSYNC_COMMIT"
ENV_SEED: Final = "DSSYNC_SEED"
ENV_BACKEND: Final = "DSSYNC_BACKEND"
ENV_AVERAGE_OPTIMIZER_STATE: Final = "DSSYNC_AVERAGE_OPTIMIZER_STATE"
ENV_ARBITER: Final = "DSSYNC_ARBITER"
"""``file:PATH``, ``static:HOST:PORT`` or ``lease:NAME``."""
ENV_RENDEZVOUS_PORT: Final = "DSSYNC_RENDEZVOUS_PORT"
ENV_JOIN_WINDOW_SECONDS: Final = "DSSYNC_JOIN_WINDOW_SECONDS"
ENV_HEARTBEAT_MILLISECONDS: Final = "DSSYNC_HEARTBEAT_MILLISECONDS"
ENV_LEASE_MILLISECONDS: Final = "DSSYNC_LEASE_MILLISECONDS"
ENV_QUORUM: Final = "DSSYNC_QUORUM"
ENV_HANG_TIMEOUT_SECONDS: Final = "DSSYNC_HANG_TIMEOUT_SECONDS"
ENV_DRAIN_TIMEOUT_SECONDS: Final = "DSSYNC_DRAIN_TIMEOUT_SECONDS"
ENV_MAX_RESTARTS: Final = "DSSYNC_MAX_RESTARTS"
ENV_RESTART_CODES: Final = "DSSYNC_RESTART_CODES"
"""Comma-separated exit codes after which a launcher starts a worker again; unset means any."""
ENV_METRICS_PORT: Final = "DSSYNC_METRICS_PORT"
ENV_TOKEN_FILE: Final = "DSSYNC_TOKEN_FILE"
ENV_CHECKPOINT_PATH: Final = "DSSYNC_CHECKPOINT_PATH"
ENV_CHECKPOINT_INTERVAL_STEPS: Final = "DSSYNC_CHECKPOINT_INTERVAL_STEPS"
ENV_CHECKPOINT_KEEP: Final = "DSSYNC_CHECKPOINT_KEEP"
ENV_TERMINATION_LOG: Final = "DSSYNC_TERMINATION_LOG"
"""File that receives the launcher's verdict as JSON; the kubelet shows it in the pod's status."""
ENV_INTERFACE: Final = "DSSYNC_INTERFACE"

ENV_SETTINGS: Final = "DSSYNC_SETTINGS"
"""JSON object of variables that all pods of a job have in common, name to value.

Each variable apart is an item with an owner to the API server, and 21 of them were a third of what
a pod cost it (docs/decisions, 2026-11-30-settings-in-one-variable). Who the pod is stays apart,
for manifests and scripts that speak of it before ``dssync`` runs.
"""
IDENTITY: Final = frozenset({ENV_JOB_NAME, ENV_JOB_NAMESPACE, ENV_JOB_UID, ENV_SLOT})


def gathered(variables: Mapping[str, str]) -> dict[str, str]:
    """Return variables with all but the ``IDENTITY`` in ``ENV_SETTINGS``."""
    apart = {name: value for name, value in variables.items() if name in IDENTITY}
    common = {name: value for name, value in variables.items() if name not in IDENTITY}
    return {**apart, ENV_SETTINGS: json.dumps(common, separators=(",", ":"))}


def spread(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment with what ``ENV_SETTINGS`` holds in its place, and winning.

    Raises:
        ValueError: it is no JSON object of texts.
    """
    kept = dict(environ)
    said = kept.pop(ENV_SETTINGS, "") or "{}"
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise ValueError(f"{ENV_SETTINGS} is {said[:200]!r}: expected a JSON object of texts")
    return kept | found


# --- Variables that a launcher sets for its workers. ----------------------------------------
ENV_LINK_FD: Final = "DSSYNC_LINK_FD"
"""Descriptor of the socket pair to the launcher; absent means a world of one."""

DEFAULT_PORT: Final = 29400
TERMINATION_LOG: Final = "/dev/termination-log"
WORKER_CONTAINER: Final = "worker"

# --- Labels and annotations of a pod. -------------------------------------------------------
LABEL_JOB_NAME: Final = f"{GROUP}/job-name"
LABEL_JOB_UID: Final = f"{GROUP}/job-uid"
LABEL_SLOT: Final = f"{GROUP}/worker-index"
LABEL_INCARNATION: Final = f"{GROUP}/incarnation"
LABEL_TEMPLATE_HASH: Final = f"{GROUP}/template-hash"
ANNOTATION_CREATED_FOR: Final = f"{GROUP}/created-for"

# --- Keys of the arbiter's record (annotations of a Lease, fields of a file). ---------------
RECORD_ADDRESS: Final = f"{GROUP}/address"
RECORD_DESIRED: Final = f"{GROUP}/desired"
RECORD_MIN: Final = f"{GROUP}/min"
RECORD_MAX: Final = f"{GROUP}/max"
RECORD_GONE: Final = f"{GROUP}/gone"
"""JSON list of pod uids that are confirmed gone; written before their slots are reused. Packed."""
RECORD_NODES: Final = f"{GROUP}/nodes"
"""JSON object: node name to zone/rack path. Packed."""
RECORD_LAUNCHERS: Final = f"{GROUP}/launchers"
"""JSON list of the launchers of the last view: slot, uid, address and process of each. Packed."""
RECORD_MISSING: Final = f"{GROUP}/missing"
"""The same of those whom the coordinator misses, and whose ends nothing has confirmed. Packed."""
RECORD_CHALLENGE: Final = f"{GROUP}/challenge"
"""Uid of a launcher that waits for the coordinator to take this entry away."""
RECORD_COMPLETED: Final = f"{GROUP}/completed"
RECORD_VIEW: Final = f"{GROUP}/view"
"""JSON object with the integers ``VIEW_KEYS``: the view that the coordinator reached last."""
VIEW_KEYS: Final = ("term", "sequence", "pods", "workers")
RECORD_PROGRESS: Final = f"{GROUP}/progress"
"""JSON object with the integer ``PROGRESS_STEP`` and, once it is known, ``PROGRESS_TOTAL``."""
PROGRESS_STEP: Final = "step"
"""Optimizer steps that are committed, of all workers together; rounds where the data is not led."""
PROGRESS_TOTAL: Final = "total_steps"

_PACK_ABOVE: Final = 8 * 1024
_PACKED: Final = "zlib:"
_MOST_UNPACKED: Final = 2 * 1024 * 1024
"""Anybody in a job may write its record; the largest job's entries have half of this."""


def pack(text: str) -> str:
    """Make a long entry short: all annotations of an object together may have 256 KiB."""
    if len(text) <= _PACK_ABOVE:
        return text
    return _PACKED + b64encode(zlib.compress(text.encode())).decode()


def unpack(entry: str) -> str:
    """Return what was packed; the empty text where that cannot be read or is too long."""
    if not entry.startswith(_PACKED):
        return entry
    unpacking = zlib.decompressobj()
    try:
        packed = b64decode(entry.removeprefix(_PACKED), validate=True)
        text = unpacking.decompress(packed, _MOST_UNPACKED).decode()
    except (ValueError, zlib.error):
        return ""
    return text if unpacking.eof else ""


def value_of(entry: str) -> object:
    """Return the JSON value of an entry, packed or not; None where it has none that can be read."""
    text = unpack(entry)
    try:
        return json.loads(text) if text else None
    except (ValueError, RecursionError):
        return None


# --- Verdicts of a launcher, in its termination message. ------------------------------------
VERDICT_DONE: Final = "Done"
VERDICT_DRAINED: Final = "Drained"
VERDICT_USER_ERROR: Final = "UserError"
VERDICT_FENCED: Final = "Fenced"
VERDICT_DO_NOT_RESTART: Final = "DoNotRestart"

# --- Exit codes of ``dssync run``. A worker's own code is passed through, as torchrun does. --
EXIT_DONE: Final = 0
EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_DO_NOT_RESTART: Final = 93
EXIT_FENCED: Final = 94
EXIT_REJOIN: Final = 95
"""Of a worker, to its launcher: start me anew, whatever my restarts; a communicator hangs."""
EXIT_SIGNAL_BASE: Final = 128
