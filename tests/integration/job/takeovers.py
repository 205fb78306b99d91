"""What tests of lost coordinators have in common."""

from collections.abc import Iterator
from contextlib import contextmanager

from integration.job.harness import Job, Launcher, Line, Test, coordinates
from integration.job.processes import start_time

PODS = 4


def pods_of(job: Job, count: int = PODS, workers: int = 2, *flags: str) -> list[Launcher]:
    """Start pods of some workers each, and wait until they have trained for a while."""
    job.resize(desired=count)
    most = f"1:{max(count, PODS)}"
    pods = [job.pod(slot, workers, *flags, pods=most) for slot in range(count)]
    job.board.wait(lambda line: line["event"] == "round" and line["round"] == 12, count * workers)
    return pods


def workers_of(job: Job, slots: set[int]) -> dict[tuple[int, int], tuple[int, str]]:
    """Return process id and start time of the workers of some pods as they last reported."""
    lines = {(line["slot"], line["rank"]): line for line in job.board.rounds()}
    chosen = {where: line["pid"] for where, line in lines.items() if where[0] in slots}
    return {where: (pid, start_time(pid)) for where, pid in chosen.items()}


def committed(slot: int, round_above: int) -> Test:
    """Return the test for a round that a pod has committed with mates, above a number."""
    return lambda line: (
        line["event"] == "round"
        and line["slot"] == slot
        and line["round"] > round_above
        and line["result"] == "committed"
    )


def latest_round(job: Job) -> int:
    return max(line["round"] for line in job.board.rounds())


def rounds_go_on(job: Job, slots: set[int], count: int = 10) -> None:
    """Wait until every pod has committed rounds together with others beyond what is known now."""
    since = latest_round(job)
    for slot in slots:
        job.board.wait(committed(slot, since), count)


def port_of(job: Job) -> int:
    """Return the port at which the coordinator listens."""
    said = job.board.select(coordinates)[-1]["text"].partition(" address=")[2]
    return int(said.partition(" ")[0].rpartition(":")[2])


def linked(job: Job, term: int, pods: list[Launcher]) -> list[Line]:
    """Wait until launchers are linked to the coordinator of a term."""
    return [job.board.wait(pod.says("linked", f"term={term}"))[0] for pod in pods]


@contextmanager
def arbiter_away(job: Job) -> Iterator[None]:
    """Put a file where the arbiter's folder is: it can be neither read nor written."""
    record, kept = job.folder / "arbiter", job.folder / "kept"
    record.rename(kept)
    record.touch()
    yield
    record.unlink()
    kept.rename(record)
