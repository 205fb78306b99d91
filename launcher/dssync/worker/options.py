"""How this script synchronises: the arguments of its ``GroupSync``, else the launcher's flags."""

from dataclasses import dataclass

from dssync.control import messages as m
from dssync.errors import ScheduleError, UsageError
from dssync.schedule import Settings
from dssync.worker.link import Setup


@dataclass(frozen=True)
class SyncOptions:
    """What all members of a job must agree on."""

    every: int
    group_size: int
    mode: str
    commit: str
    seed: int

    @classmethod
    def of(
        cls, setup: Setup, every: int | None, group_size: int | None, mode: str | None
    ) -> "SyncOptions":
        """Merge and check.

        Raises:
            UsageError: ``every`` is below 1, or there is no such group size or mode.
        """
        steps = setup.every if every is None else every
        if steps < 1:
            raise UsageError(f"GroupSync got every={steps}: at least 1 optimizer step")
        size = setup.group_size if group_size is None else group_size
        try:
            settings = Settings(setup.mode if mode is None else mode, size, setup.seed)
        except ScheduleError as error:
            raise UsageError(f"GroupSync cannot use this schedule: {error}") from None
        return cls(steps, settings.group_size, settings.mode, setup.commit, setup.seed)

    @property
    def message(self) -> m.SyncSettings:
        """As the coordinator compares it."""
        return m.SyncSettings(self.mode, self.group_size, self.every, self.commit, self.seed)
