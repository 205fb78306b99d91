"""Random kills, freezes, cuts, joins and drains, from a seed, at moments that hit rounds."""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from integration.job.harness import Job, Launcher, Line, coordinates, matching
from integration.job.takeovers import port_of
from integration.job.wires import cut

PODS = 4
WORKERS_PER_POD = 2
LEASE_SECONDS = 2.0
LEDGER_SECONDS = 1.0
"""What a coordinator knew alone for longer than this, launchers know, too."""
HANG_SECONDS = 30.0


LEAST_WORKERS = 4
"""As many train, at least, when something is done to a job that is not waited for."""


class Chaos:
    """Does things to a job of several pods, and keeps what it takes to judge the job.

    Args:
        job: the job; its launchers are started here.
        seed: of all that is chosen.
        flags: for each launcher.
        spec: for the training script.
        brisk: only kills, joins and drains, one after the other while successors are on their way.
    """

    def __init__(
        self,
        job: Job,
        seed: int,
        flags: tuple[str, ...],
        spec: dict[str, object],
        brisk: bool = False,
    ) -> None:
        self._brisk = brisk
        self._job = job
        self._dice = random.Random(seed)
        self._flags = flags
        self._spec = spec
        self._pods: dict[int, Launcher] = {}
        self._struck: set[str] = set()
        """Members that were killed, or left with their pod."""
        self._unwitnessed: list[tuple[int, float, float]] = []
        """Slots of coordinators that were struck, and when what only they knew was lost."""
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
        if self._brisk:
            self._await_workers()
        actions: list[tuple[int, Callable[[], None]]] = [
            (5, self._kill_worker),
            (1, lambda: self._kill_pod(self._some_slot())),
            (2, lambda: self._kill_pod(self._coordinator_slot())),
            (2, self._drain_pod),
            (2, self._freeze_briefly),
            (1, lambda: self._freeze_for_long(self._some_slot())),
            (1, lambda: self._freeze_for_long(self._coordinator_slot())),
            (2, self._cut),
        ]
        if self._brisk:
            # A new pod imports torch, which takes longer than all else.
            actions = [(12, self._kill_worker), actions[1], actions[3]]
        weights = [weight for weight, _ in actions]
        self._dice.choices([each for _, each in actions], weights)[0]()
        return not self._over

    def end(self) -> None:
        """Wait for the end of the job, and end pods that came too late to take part."""
        if self._brisk:
            self._job.board.wait(completed)
            self._job.coordinator().end()
        for launcher in self._job.launchers:
            if self._brisk and launcher.process.poll() is None:
                launcher.signal(signal.SIGKILL)
            launcher.end()

    # --- what is to be seen afterwards ------------------------------------------------------

    @property
    def ends(self) -> dict[str, Line]:
        """The last word of each member that nothing was done to, though it may have been frozen."""
        lines = self._job.board.select(lambda line: "own" in line)
        last = {line["own"]: line for line in lines}
        return {own: line for own, line in last.items() if own not in self._struck}

    def longest_silence(self) -> float:
        """Return the longest time in which no member at all has ended a round."""
        seen = [line["seen"] for line in self._job.board.rounds()]
        return max(after - before for before, after in pairwise(seen))

    def is_doubtful(self, line: Line) -> bool:
        """Tell whether nobody outside a pod that was struck can know of a committed round.

        A coordinator that goes takes along what it decided for members of its own pod alone, if
        they go as well or enter again; then their samples are trained on once more.
        """
        if line["event"] != "round" or {int(x.partition(".")[0]) for x in line["members"]} != {
            line["slot"]
        }:
            return False
        return any(
            slot == line["slot"] and since <= line["seen"] <= until
            for slot, since, until in self._unwitnessed
        )

    # --- what can happen --------------------------------------------------------------------

    def _kill_worker(self) -> None:
        victims = self._dice.sample(self._workers(), self._dice.choice((1, 1, 1, 2)))
        self._await_moment(victims[0])
        killed = [victim for victim in victims if self._kill(victim)]
        if self._brisk:
            # What was heard of them last may have been said before they went with their pod.
            self._struck.update(victim["own"] for victim in victims)
            if killed:
                self._note("kill", killed)
            return
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

    def _kill_pod(self, slot: int) -> None:
        victims = self._workers_of(slot)
        if victims:
            self._await_moment(victims[0])
        with self._unwitnessed_in(slot):
            self._gone(slot).signal(signal.SIGKILL)
            self._note("pod", victims)
            self._replace(slot)

    def _drain_pod(self) -> None:
        slot = self._some_slot() if self._brisk else self._dice.choice(sorted(self._pods))
        self._note("drain", self._workers_of(slot))
        pod = self._gone(slot)
        pod.signal(signal.SIGTERM)
        self._wait(matching(event="end", source=pod.name))
        self._replace(slot)

    def _freeze_briefly(self) -> None:
        """Stop a launcher or a worker for less than a lease."""
        worker = self._dice.choice(self._workers())
        pid = self._dice.choice((worker["pid"], self._pods[worker["slot"]].pid))
        self._note("freeze", [worker])
        with self._unwitnessed_in(worker["slot"]), self._frozen([pid]):
            time.sleep(self._dice.uniform(0.1, 0.5) * LEASE_SECONDS)
        self._await_step(worker)

    def _freeze_for_long(self, slot: int) -> None:
        """Stop a launcher, perhaps with its workers, until the others have gone on without it."""
        workers = self._workers_of(slot)
        pids = [self._pods[slot].pid]
        if self._dice.random() < 0.5:
            pids += [each["pid"] for each in workers]
        self._note("long freeze", workers)
        with self._unwitnessed_in(slot):
            with self._frozen(pids):
                if self._pods[slot] is self._job.coordinator():
                    self._wait(coordinates, new=True)
                others = [each for each in self._workers() if each["slot"] != slot]
                for _ in range(2):
                    self._wait(_round_of(self._dice.choice(others)), new=True)
                time.sleep(LEASE_SECONDS)
            for worker in workers:
                self._wait(_round_of(worker), new=True)

    def _cut(self) -> None:
        """End a launcher's connection to the coordinator; it comes back at once."""
        coordinator = self._job.coordinator()
        others = [slot for slot, pod in self._pods.items() if pod is not coordinator]
        slot = self._dice.choice(sorted(others))
        workers = self._workers_of(slot)
        if workers:
            self._await_moment(workers[0])
        self._note(f"cut {cut(self._pods[slot].pid, port_of(self._job))} of", workers)
        for worker in workers:
            self._wait(_round_of(worker), new=True)

    # --- how ----------------------------------------------------------------------------------

    def _replace(self, slot: int) -> None:
        if self._over:
            return
        self._start_pod(slot)
        if self._brisk:
            return
        known = {line["own"] for line in self._job.board.select(lambda line: "own" in line)}
        for rank in range(WORKERS_PER_POD):
            # Until each of its workers has spoken, the last words there are those of the dead.
            self._wait(
                lambda line, rank=rank: (
                    (line.get("slot"), line.get("rank")) == (slot, rank)
                    and line.get("own", "") not in {"", *known}
                )
            )

    def _start_pod(self, slot: int) -> None:
        self._pods[slot] = self._job.pod(
            slot, WORKERS_PER_POD, *self._flags, pods=f"1:{PODS}", script="exact.py", **self._spec
        )

    def _gone(self, slot: int) -> Launcher:
        """Take a pod out that is about to end with its workers."""
        self._struck.update(
            line["own"] for line in self._job.board.select(matching(slot=slot)) if "own" in line
        )
        return self._pods.pop(slot)

    @contextmanager
    def _frozen(self, pids: list[int]) -> Iterator[None]:
        """Stop processes for a while; those that have ended stay so."""
        stopped = [pid for pid in pids if _signal(pid, signal.SIGSTOP)]
        try:
            yield
        finally:
            for pid in stopped:
                _signal(pid, signal.SIGCONT)

    @contextmanager
    def _unwitnessed_in(self, slot: int) -> Iterator[None]:
        """Note, if the slot coordinates, that what it alone knows may be lost here."""
        coordinated = self._pods[slot] is self._job.coordinator()
        since = time.monotonic() - LEDGER_SECONDS
        yield
        if coordinated:
            self._unwitnessed.append((slot, since, time.monotonic()))

    # --- who is there -----------------------------------------------------------------------

    @property
    def _over(self) -> bool:
        return bool(self._job.board.select(completed))

    def _workers(self) -> list[Line]:
        """Return the latest line of each worker that trains, in no random order."""
        latest: dict[tuple[int, int], Line] = {}
        for line in self._job.board.select(lambda line: line["event"] in ("round", "step")):
            latest[line["slot"], line["rank"]] = line
        places = [place for place in sorted(latest) if place[0] in self._pods]
        if self._brisk:
            # Who was struck has had its last word, and its successor may not have spoken.
            return [latest[x] for x in places if latest[x]["own"] not in self._struck]
        return [latest[place] for place in places]

    def _workers_of(self, slot: int) -> list[Line]:
        return [each for each in self._workers() if each["slot"] == slot]

    def _coordinator_slot(self) -> int:
        coordinator = self._job.coordinator()
        found = [slot for slot, pod in self._pods.items() if pod is coordinator]
        return found[0] if found else self._some_slot()

    def _some_slot(self) -> int:
        coordinator = self._job.coordinator()
        slots = [slot for slot, pod in self._pods.items() if pod is not coordinator]
        if self._brisk:
            slots = [slot for slot in slots if self._workers_of(slot)] or slots
        return self._dice.choice(slots)

    def _await_workers(self) -> None:
        """Wait until enough workers train that losses leave some."""
        while len(self._workers()) < LEAST_WORKERS and not self._over:
            self._wait(matching(event="round"), new=True)

    def _await_moment(self, victim: Line) -> None:
        """Wait for some moment of a round of the victim, or of anybody's if it may be gone."""
        if self._brisk:
            self._wait(matching(event="step"), new=True)
        else:
            self._await_step(victim)
        time.sleep(self._dice.uniform(0, 0.008))

    def _await_step(self, victim: Line) -> None:
        self._wait(lambda line: line["event"] == "step" and line["own"] == victim["own"], new=True)

    def _wait(self, test: Callable[[Line], bool], new: bool = False) -> None:
        """Wait for a line, or for the end of the job."""
        since = time.monotonic() if new else 0.0
        self._job.board.wait(lambda line: completed(line) or (line["seen"] > since and test(line)))

    def _kill(self, victim: Line) -> bool:
        killed = _signal(victim["pid"], signal.SIGKILL)
        if killed:
            self._struck.add(victim["own"])
        return killed

    def _note(self, what: str, victims: list[Line]) -> None:
        self.done.append(f"{what} {' '.join(_place(each) for each in victims)}")


def completed(line: Line) -> bool:
    """Tell whether the coordinator says that the job is done."""
    return line["event"] == "log" and line["text"].startswith("dssync completed")


def _round_of(worker: Line) -> Callable[[Line], bool]:
    """Return the test for a round that the worker has ended."""
    return lambda line: line["event"] == "round" and line["own"] == worker["own"]


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False  # It ended by itself while the dice fell.
    return True


def _place(line: Line) -> str:
    return f"{line['slot']}.{line['rank']}."
