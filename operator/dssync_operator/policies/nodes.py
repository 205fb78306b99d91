"""What a node's loss and place mean for the pods on it."""

from collections.abc import Iterable, Mapping
from typing import Final

from dssync_operator.pod import Pod

STUCK_SECONDS: Final = 5.0
"""A pod still there this long after its grace period has nobody to end it."""
NAMES_ONLY: Final = (
    "launchers know their nodes by name only, as neither the operator (topology.enabled of its "
    "chart) nor DSSYNC_TOPOLOGY in the template tells zones and racks"
)
TOO_LONG: Final = (
    "launchers know their nodes by name only, as the paths of {} nodes do not fit into the Lease: "
    "name fewer topology.keys"
)
TAINTS: Final = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


def tolerations(unreachable_seconds: int) -> list[dict[str, object]]:
    """Tolerations that let a pod outlive its node's silence for so long and no longer."""
    return [
        {
            "key": taint,
            "operator": "Exists",
            "effect": "NoExecute",
            "tolerationSeconds": unreachable_seconds,
        }
        for taint in TAINTS
    ]


def unreachable(pods: Iterable[Pod], now: float) -> tuple[Pod, ...]:
    """Pods that should long be gone: their node does not answer."""
    return tuple(
        pod
        for pod in pods
        if pod.doomed_since is not None
        and pod.ended is None
        and now - pod.doomed_since > STUCK_SECONDS
    )


def place_of(labels: Mapping[str, object], keys: Iterable[str]) -> str:
    """Path of a node from the outermost level inwards, such as ``zone-a/rack-7``.

    A level that the node does not name is ``-``, so that the rest stays in its column.
    """
    return "/".join(str(labels.get(key) or "-").replace("/", "_") for key in keys)
