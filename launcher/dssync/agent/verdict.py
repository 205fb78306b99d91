"""How a pod ended, decided from what its workers did. Pure."""

from dataclasses import dataclass, field

from dssync import contract
from dssync.agent.supervisor import WorkerExit


@dataclass
class Ending:
    """What is known about the end of a pod."""

    draining: bool = False
    """It was told to go."""
    completed: bool = False
    """The coordinator said that the job is done; exits from then on are no failures."""
    lost: str = ""
    """Why it gave up without a coordinator."""
    exits: list[WorkerExit] = field(default_factory=list)
    """Final exits, in order."""

    @property
    def over(self) -> bool:
        """Whether a worker that ends now is not started again."""
        return self.draining or self.completed


@dataclass(frozen=True)
class Verdict:
    """The pod's last word, for its exit code and its termination message."""

    name: str
    reason: str
    exit_code: int
    """Of the first worker that failed; 0 if none did."""
    failed: tuple[WorkerExit, ...] = ()
    """What the summary tells about."""

    @property
    def process_exit_code(self) -> int:
        """Exit code of the launcher itself: a worker's own, as far as one byte can say it."""
        if self.name in (contract.VERDICT_DONE, contract.VERDICT_DRAINED):
            return contract.EXIT_DONE
        if self.name == contract.VERDICT_DO_NOT_RESTART:
            return contract.EXIT_DO_NOT_RESTART
        if self.exit_code < 0:
            return contract.EXIT_SIGNAL_BASE - self.exit_code
        return self.exit_code or contract.EXIT_FAILED


def verdict_of(ending: Ending) -> Verdict:
    """Return the verdict: completion wins over everything, a drain over its workers' exits."""
    failed = tuple(each for each in ending.exits if each.returncode != 0)
    code = failed[0].returncode if failed else 0
    if ending.completed:
        return Verdict(contract.VERDICT_DONE, "the job is completed", 0, failed)
    if ending.draining:
        return Verdict(contract.VERDICT_DRAINED, "the pod was told to go", 0, failed)
    if any(each.returncode == contract.EXIT_DO_NOT_RESTART for each in failed):
        reason = "a worker asked not to be restarted"
        return Verdict(contract.VERDICT_DO_NOT_RESTART, reason, code, failed)
    if ending.lost:
        return Verdict(contract.VERDICT_USER_ERROR, ending.lost, code, failed)
    if failed:
        reason = f"{len(failed)} of {len(ending.exits)} workers failed"
        return Verdict(contract.VERDICT_USER_ERROR, reason, code, failed)
    return Verdict(contract.VERDICT_DONE, "all workers ended with code 0", 0)
