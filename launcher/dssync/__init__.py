"""Elastic data-parallel training in small groups that are reshuffled every round.

``GroupSync`` is all that a training script needs. It is imported on first use, because the
launcher lives in this package too and never imports torch.
"""

from typing import TYPE_CHECKING

from dssync.errors import DssyncError, ModelError, UsageError

if TYPE_CHECKING:
    from dssync.worker.groupsync import GroupSync
    from dssync.worker.outcome import Outcome
    from dssync.worker.saver import Checkpoint

__all__ = ["Checkpoint", "DssyncError", "GroupSync", "ModelError", "Outcome", "UsageError"]


def __getattr__(name: str) -> object:
    if name in ("Checkpoint", "GroupSync", "Outcome"):
        from dssync.worker import groupsync

        return getattr(groupsync, name)
    raise AttributeError(f"module 'dssync' has no attribute {name!r}")
