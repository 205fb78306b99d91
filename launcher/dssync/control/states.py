"""What several messages hold: settings, what of the data is done, what a member confirms."""

from dssync.control.codec import Message, Record
from dssync.errors import ScheduleError
from dssync.schedule import Settings


class SyncSettings(Record, frozen=True):
    """How members synchronise; must be the same for all members of a job."""

    mode: str
    group_size: int
    every: int
    commit: str
    seed: int
    backend: str = "gloo"
    average_optimizer_state: bool = False
    """In every round, not only at a flush."""

    @property
    def is_schedule(self) -> bool:
        """Whether there is a schedule with these numbers."""
        try:
            Settings(self.mode, self.group_size, self.seed)
        except ScheduleError:
            return False
        return True


class TrackState(Record, frozen=True):
    """What is done of one track."""

    name: str
    batches_per_epoch: int
    cursor: int
    """Batches from here on were never leased."""
    open: tuple[int, ...]
    """Batches below the cursor that are not committed."""


class LedgerState(Message, frozen=True):
    """What of the data is done."""

    epochs: int
    tracks: tuple[TrackState, ...]
    repeated: int


class ViewLine(Record, frozen=True):
    """Who took part, for those who read a checkpoint."""

    term: int
    sequence: int
    members: tuple[str, ...]
    unweighted: tuple[str, ...]


class Confirm(Message, frozen=True):
    """Strict commit: all results of this attempt are here and nothing is applied yet."""

    round: int
    attempt: int
    batches: tuple[int, ...]
    """Batches consumed since its last committed round; the decision commits them."""
