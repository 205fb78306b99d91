"""What follows from a worker's exit, decided without side effects."""

import enum

from dssync.contract import EXIT_DO_NOT_RESTART, EXIT_REJOIN, EXIT_SIGNAL_BASE


class Action(enum.Enum):
    """What the launcher does about an exit."""

    DONE = "done"
    """The worker ended by itself with code 0."""
    RESTART = "restart"
    """Start this worker again, alone."""
    GIVE_UP = "give up"
    """Leave it; its siblings train on."""


def after_exit(
    returncode: int, restarts: int, max_restarts: int, codes: frozenset[int] | None = None
) -> Action:
    """Decide about one worker; what its siblings do plays no part.

    Args:
        returncode: Exit code, or minus the number of the signal.
        restarts: How often this worker has been restarted so far.
        max_restarts: How often a worker may be restarted.
        codes: Exit codes after which it may be; None means any. A signal counts as 128 + number.
    """
    if returncode == 0:
        return Action.DONE
    if returncode == EXIT_REJOIN:
        return Action.RESTART  # the worker did nothing wrong: its device hangs
    if returncode == EXIT_DO_NOT_RESTART or restarts >= max_restarts:
        return Action.GIVE_UP
    code = returncode if returncode > 0 else EXIT_SIGNAL_BASE - returncode
    if codes is not None and code not in codes:
        return Action.GIVE_UP
    return Action.RESTART
