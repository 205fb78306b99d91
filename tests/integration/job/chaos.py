"""Random kills, joins and drains, from a seed, at moments that hit rounds."""

import random
import signal
import time
from collections.abc import Callable

from integration.job.harness import Job, Launcher, Line, matching

PODS = 4
WORKERS_PER_POD = 2


class Chaos:
    """Does things to a job of several pods; the coordinator's launcher is left alone."""

    def __init__(
        self, job: Job, seed: int, flags: tuple[str, ...], spec: dict[str, object]
    ) -> None:
        self._job = job
        self._dice = random.Random(seed)
        self._flags = flags
        self._spec = spec
        self._pods: dict[int, Launcher] = {}
        self.done: list[str] = []
        """What was done, for the report of a failure."""

    def start(self) -> None:
        """Start all pods and wait until they train."""
        self._job.resize(PODS)
        for slot in range(PODS):
            self._start_pod(slot)
        self._job.board.wait(matching(event="round"), PODS * WORKERS_PER_POD)

    def strike(self) -> bool:
        """Do one thing; False if the job is over."""
        actions: list[Callable[[], None]] = [self._kill_worker] * 5
        actions += [self._kill_pod, self._drain_pod, self._drain_pod]
        self._dice.choice(actions)()
        return not self._over

    @property
    def _over(self) -> bool:
        return bool(self._job.board.select(completed))

    # --- what can happen --------------------------------------------------------------------

    def _kill_worker(self) -> None:
        victims = self._dice.sample(self._workers(), self._dice.choice((1, 1, 1, 2)))
        self._await_step(victims[0])
        time.sleep(self._dice.uniform(0, 0.008))
        for victim in victims:
            self._kill(victim["pid"])
        self._note("kill", victims)
        for victim in victims:
            # Its successor trains, unless its pod goes first. What is there already was said by
            # those before it in its place.
            self._wait(
                lambda line, v=victim: (
                    line.get("own", "").startswith(_place(v)) and line["own"] != v["own"]
                ),
                new=True,
            )

    def _kill_pod(self) -> None:
        slot = self._some_pod()
        victims = [each for each in self._workers() if each["slot"] == slot]
        if victims:
            self._await_step(victims[0])
        time.sleep(self._dice.uniform(0, 0.008))
        self._pods.pop(slot).signal(signal.SIGKILL)
        self._note("pod", victims)
        self._replace(slot)

    def _drain_pod(self) -> None:
        slot = self._some_pod()
        self._note("drain", [each for each in self._workers() if each["slot"] == slot])
        pod = self._pods.pop(slot)
        pod.signal(signal.SIGTERM)
        self._wait(matching(event="end", source=pod.name))
        self._replace(slot)

    def _replace(self, slot: int) -> None:
        if self._over:
            return
        self._start_pod(slot)
        known = {line["own"] for line in self._job.board.select(lambda line: "own" in line)}
        for rank in range(WORKERS_PER_POD):
            # Until each of its workers has spoken, the last words there are those of the dead.
            self._wait(
                lambda line, rank=rank: (
                    (line.get("slot"), line.get("rank")) == (slot, rank)
                    and line.get("own", "") not in {"", *known}
                )
            )

    # --- who is there -----------------------------------------------------------------------

    def _start_pod(self, slot: int) -> None:
        self._pods[slot] = self._job.pod(
            slot, WORKERS_PER_POD, *self._flags, pods=f"1:{PODS}", script="exact.py", **self._spec
        )

    def _workers(self) -> list[Line]:
        """Return the latest line of each worker that trains, in no random order."""
        latest: dict[tuple[int, int], Line] = {}
        for line in self._job.board.select(lambda line: line["event"] in ("round", "step")):
            latest[line["slot"], line["rank"]] = line
        present = [latest[place] for place in sorted(latest) if place[0] in self._pods]
        return present

    def _some_pod(self) -> int:
        coordinator = self._job.coordinator()
        return self._dice.choice([s for s, pod in self._pods.items() if pod is not coordinator])

    def _await_step(self, victim: Line) -> None:
        self._wait(lambda line: line["event"] == "step" and line["own"] == victim["own"], new=True)

    def _wait(self, test: Callable[[Line], bool], new: bool = False) -> None:
        """Wait for a line, or for the end of the job."""
        since = time.monotonic() if new else 0.0
        self._job.board.wait(lambda line: completed(line) or (line["seen"] > since and test(line)))

    def _kill(self, pid: int) -> None:
        try:
            self._job.kill(pid)
        except ProcessLookupError:
            return  # It ended by itself while the dice fell.

    def _note(self, what: str, victims: list[Line]) -> None:
        self.done.append(f"{what} {' '.join(_place(each) for each in victims)}")


def completed(line: Line) -> bool:
    """Tell whether the coordinator says that the job is done."""
    return line["event"] == "log" and line["text"].startswith("dssync completed")


def _place(line: Line) -> str:
    return f"{line['slot']}.{line['rank']}."
