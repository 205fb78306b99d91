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
    fenced: bool = False
    """It was replaced while it was out of reach."""
    lost: str = ""
    """Why it gave up without a coordinator."""
    exits: list[WorkerExit] = field(default_factory=list)
    """Final exits, in order."""

    @property
    def over(self) -> bool:
        """Whether a worker that ends now is not started again."""
        return self.draining or self.completed or self.fenced


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
        if self.name == contract.VERDICT_FENCED:
            return contract.EXIT_FENCED
        if self.exit_code < 0:
            return contract.EXIT_SIGNAL_BASE - self.exit_code
        return self.exit_code or contract.EXIT_FAILED


def verdict_of(ending: Ending) -> Verdict:
    """Return the verdict: completion wins over everything, a drain over its workers' exits."""
    failed = tuple(each for each in ending.exits if each.returncode != 0)
    code = failed[0].returncode if failed else 0
    asked = any(each.returncode == contract.EXIT_DO_NOT_RESTART for each in failed)
    lost = f"{len(failed)} of {len(ending.exits)} workers failed"
    found = (
        (ending.completed, contract.VERDICT_DONE, "the job is completed", 0),
        (ending.draining, contract.VERDICT_DRAINED, "the pod was told to go", 0),
        (ending.fenced, contract.VERDICT_FENCED, "the pod was replaced", 0),
        (asked, contract.VERDICT_DO_NOT_RESTART, "a worker asked not to be restarted", code),
        (ending.lost, contract.VERDICT_USER_ERROR, ending.lost, code),
        (failed, contract.VERDICT_USER_ERROR, lost, code),
    )
    for holds, name, reason, exit_code in found:
        if holds:
            return Verdict(name, reason, exit_code, failed)
    return Verdict(contract.VERDICT_DONE, "all workers ended with code 0", 0)
