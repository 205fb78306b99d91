"""How this script synchronises: the arguments of its ``GroupSync``, else the launcher's flags."""

from dataclasses import dataclass

from dssync.contract import MODES
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
    average_optimizer_state: bool

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
        chosen = setup.mode if mode is None else mode
        if chosen not in MODES:
            raise UsageError(f"GroupSync got mode={chosen!r}: one of {', '.join(MODES)}")
        try:
            settings = Settings(chosen, size, setup.seed)
        except ScheduleError as error:
            raise UsageError(f"GroupSync cannot use this schedule: {error}") from None
        return cls(
            steps,
            settings.group_size,
            settings.mode,
            setup.commit,
            setup.seed,
            setup.average_optimizer_state,
        )

    @property
    def message(self) -> m.SyncSettings:
        """As the coordinator compares it."""
        return m.SyncSettings(
            mode=self.mode,
            group_size=self.group_size,
            every=self.every,
            commit=self.commit,
            seed=self.seed,
            average_optimizer_state=self.average_optimizer_state,
        )
