"""Random kills, freezes, cuts, joins and drains, from a seed, at moments that hit rounds.

One follows the other as soon as enough workers train, while successors are still on their way: a
new pod imports torch, which takes longer than all else.
"""

import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from integration.job.harness import Job, Launcher, Line, coordinates, matching
from integration.job.takeovers import port_of
from integration.job.wires import cut

PODS = 4
WORKERS_PER_POD = 2
LEASE_SECONDS = 2.0
LEDGER_SECONDS = 1.0
"""What a coordinator knew alone for longer than this, launchers know, too."""
LAST_WORDS_SECONDS = 2.0
"""What a pod said before it was killed is here by then, and its successor says nothing yet."""
HANG_SECONDS = 30.0
LEAST_WORKERS = 4
LEAST_PODS = 2
"""So many train, at least, when something is done to a job."""

RoundKey = tuple[int, tuple[str, ...]]
"""Number and members."""


@dataclass(frozen=True)
class _Loss:
    """What the launcher of a slot knew of rounds of this time may be lost."""

    slot: int
    coordinated: bool
    since: float
    until: float

    def covers(self, line: Line) -> bool:
        return bool(self.slot == line["slot"] and self.since <= line["seen"] <= self.until)

    def meets(self, other: "_Loss") -> bool:
        return self.since <= other.until and other.since <= self.until


class Chaos:
    """Does things to a job of several pods, and keeps what it takes to judge the job.

    Args:
        job: the job; its launchers are started here.
        seed: of all that is chosen.
        flags: for each launcher.
        spec: for the training script.
        is_mild: only kills, joins and drains.
    """

    def __init__(
        self,
        job: Job,
        seed: int,
        flags: tuple[str, ...],
        spec: dict[str, object],
        is_mild: bool = False,
    ) -> None:
        self._is_mild = is_mild
        self._job = job
        self._dice = random.Random(seed)
        self._flags = flags
        self._spec = spec
        self._began = time.monotonic()
        self._pods: dict[int, Launcher] = {}
        self._struck: dict[str, float] = {}
        """Members that were killed, and launchers that were killed or told to leave, and when."""
        self._losses: list[_Loss] = []
        self._looked = 0
        """Lines that were looked at."""
        self._latest: dict[tuple[int, int], Line] = {}
        """The latest line of each place that says that a worker trains."""
        self._leader = ""
        """Name of the launcher that became coordinator last."""
        self._is_over = False
        self.done: list[str] = []
        """What was done and after how many seconds, for the report of a failure."""
        self.cuts: list[int] = []
        """Connections that each cut has ended; none if the coordinator had just gone."""

    def start(self) -> None:
        """Start all pods and wait until they train."""
        self._job.resize(PODS)
        for slot in range(PODS):
            self._start_pod(slot)
        self.settle()

    def settle(self) -> None:
        """Wait until everybody trains."""
        self._await_workers(PODS * WORKERS_PER_POD)

    def strike(self) -> bool:
        """Do one thing; False if the job is over."""
        self._await_workers(LEAST_WORKERS)
        if self._over:
            return False
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
        if self._is_mild:
            actions = [(12, self._kill_worker), *actions[1:4]]
        weights = [weight for weight, _ in actions]
        self._dice.choices([each for _, each in actions], weights)[0]()
        return not self._over

    def end(self) -> None:
        """Wait until every pod has ended by itself, for as long as rounds go on."""
        self._job.board.wait_while(matching(event="round"), completed)
        for launcher in self._job.launchers:
            launcher.end()

    # --- what is to be seen afterwards ------------------------------------------------------

    @property
    def ends(self) -> dict[str, Line]:
        """The last word of each member that nothing was done to, though it may have been frozen."""
        lines = self._job.board.select(lambda line: "own" in line and not self._is_struck(line))
        return {line["own"]: line for line in lines}

    def longest_silence(self) -> float:
        """Return the longest time in which a member that lived had ended no round."""
        longest, last = 0.0, dict[str, Line]()
        for line in self._job.board.select(lambda line: line["event"] in ("round", "over")):
            longest = max(longest, line["seen"] - last.get(line["own"], line)["seen"])
            last[line["own"]] = line
        until_struck = [self._struck_at(line) - line["seen"] for line in last.values()]
        return max(longest, *(seconds for seconds in until_struck if seconds < math.inf))

    def doubtful_rounds(self) -> set[RoundKey]:
        """Return the rounds of which nobody outside pods that were struck tells.

        A coordinator that goes takes along what it decided lately if it had told nobody else, or
        only pods that go at that time or stand still: they enter again, and whatever they say
        was committed is trained on once more.
        """
        told: dict[RoundKey, list[Line]] = {}
        for line in self._job.board.select(matching(event="round")):
            told.setdefault(key_of(line), []).append(line)
        return {key for key, lines in told.items() if all(map(self._may_be_lost, lines))}

    def _may_be_lost(self, line: Line) -> bool:
        """Tell whether what a member says may be known to it and to a lost coordinator alone."""
        own = [loss for loss in self._losses if loss.covers(line)]
        return any(loss.coordinated and loss.meets(each) for each in own for loss in self._losses)

    # --- what can happen --------------------------------------------------------------------

    def _kill_worker(self) -> None:
        victims = self._dice.sample(self._workers(), self._dice.choice((1, 1, 1, 2)))
        self._await_moment()
        self._note("kill", victims)
        for victim in victims:
            self._struck[victim["own"]] = time.monotonic()
            _signal(victim["pid"], signal.SIGKILL)

    def _kill_pod(self, slot: int) -> None:
        self._await_moment()
        self._note("pod", self._workers_of(slot))
        since, coordinated = time.monotonic() - LEDGER_SECONDS, self._coordinates(slot)
        pod = self._gone(slot)
        pod.signal(signal.SIGKILL)
        until = time.monotonic() + LAST_WORDS_SECONDS
        self._losses.append(_Loss(slot, coordinated, since, until))
        self._start_pod(slot)

    def _drain_pod(self) -> None:
        slot = self._dice.choice(sorted(self._pods))
        self._note("drain", self._workers_of(slot))
        pod = self._gone(slot)
        pod.signal(signal.SIGTERM)
        pod.end()
        if not self._over:
            self._start_pod(slot)

    def _freeze_briefly(self) -> None:
        """Stop a launcher or a worker for less than a lease."""
        worker = self._dice.choice(self._workers())
        pid = self._dice.choice((worker["pid"], self._pods[worker["slot"]].pid))
        self._note("freeze", [worker])
        with self._unwitnessed_in(worker["slot"]):
            with self._frozen([pid]):
                time.sleep(self._dice.uniform(0.1, 0.5) * LEASE_SECONDS)
            self._await_rounds([worker])

    def _freeze_for_long(self, slot: int) -> None:
        """Stop a launcher, perhaps with its workers, until the others have gone on without it."""
        workers = self._workers_of(slot)
        pids = [self._pods[slot].pid]
        if self._dice.random() < 0.5:
            pids += [each["pid"] for each in workers]
        self._note("long freeze", workers)
        with self._unwitnessed_in(slot):
            with self._frozen(pids):
                if self._coordinates(slot):
                    self._wait(coordinates, new=True)
                others = [each for each in self._workers() if each["slot"] != slot]
                for _ in range(2):
                    self._await_rounds([self._dice.choice(others)])
                time.sleep(LEASE_SECONDS)
            self._await_rounds(workers)

    def _cut(self) -> None:
        """End a launcher's connection to the coordinator; it comes back at once."""
        slot = self._some_slot()
        workers = self._workers_of(slot)
        self._await_moment()
        self.cuts.append(cut(self._pods[slot].pid, port_of(self._job)))
        self._note(f"cut {self.cuts[-1]} of", workers)
        self._await_rounds(workers)

    # --- how ----------------------------------------------------------------------------------

    def _start_pod(self, slot: int) -> None:
        self._pods[slot] = self._job.pod(
            slot, WORKERS_PER_POD, *self._flags, pods=f"1:{PODS}", script="exact.py", **self._spec
        )

    def _gone(self, slot: int) -> Launcher:
        """Take a pod out that is about to end with its workers."""
        pod = self._pods.pop(slot)
        self._struck[pod.name] = time.monotonic()
        return pod

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
        """Note that what this slot alone knows may be lost here."""
        since, coordinated = time.monotonic() - LEDGER_SECONDS, self._coordinates(slot)
        yield
        self._losses.append(_Loss(slot, coordinated, since, time.monotonic()))

    # --- who is there -----------------------------------------------------------------------

    def _look(self) -> None:
        """Take in what has been said since the last look; there may be very much of it."""
        lines = self._job.board.lines
        while self._looked < len(lines):
            line = lines[self._looked]
            self._looked += 1
            if line["event"] in ("step", "round"):
                self._latest[line["slot"], line["rank"]] = line
            elif coordinates(line):
                self._leader = line["source"]
            self._is_over = self._is_over or completed(line)

    @property
    def _over(self) -> bool:
        self._look()
        return self._is_over

    def _is_struck(self, line: Line) -> bool:
        return self._struck_at(line) < math.inf

    def _struck_at(self, line: Line) -> float:
        """Return when a member was killed or told to leave, if it was."""
        return min(self._struck.get(line[name], math.inf) for name in ("own", "pod"))

    def _workers(self) -> list[Line]:
        """Return the latest line of each worker that trains, in no random order."""
        self._look()
        latest = [self._latest[place] for place in sorted(self._latest)]
        return [line for line in latest if not self._is_struck(line)]

    def _workers_of(self, slot: int) -> list[Line]:
        return [each for each in self._workers() if each["slot"] == slot]

    def _coordinates(self, slot: int) -> bool:
        self._look()
        return self._pods[slot].name == self._leader

    def _coordinator_slot(self) -> int:
        found = [slot for slot in self._pods if self._coordinates(slot)]
        return found[0] if found else self._some_slot()

    def _some_slot(self) -> int:
        """Choose a pod whose workers train and that does not coordinate."""
        slots = [slot for slot in self._pods if not self._coordinates(slot)]
        return self._dice.choice(sorted(slot for slot in slots if self._workers_of(slot)))

    def _await_workers(self, count: int) -> None:
        """Wait until enough workers train that losses leave some."""
        while not self._over:
            workers = self._workers()
            if len(workers) >= count and len({each["slot"] for each in workers}) >= LEAST_PODS:
                return
            self._wait(matching(event="round"), new=True)

    def _await_moment(self) -> None:
        """Wait for some moment of a round."""
        self._wait(matching(event="step"), new=True)
        time.sleep(self._dice.uniform(0, 0.008))

    def _await_rounds(self, workers: list[Line]) -> None:
        """Wait until each of these very processes has ended a round that is not ended yet."""
        since = time.monotonic()
        for worker in workers:
            ended = matching(event="round", own=worker["own"])
            self._wait(lambda line, ended=ended: line["seen"] > since and ended(line))

    def _wait(self, test: Callable[[Line], bool], new: bool = False) -> None:
        """Wait for a line, or for the end of the job."""
        since = time.monotonic() if new else 0.0
        self._job.board.wait(lambda line: completed(line) or (line["seen"] > since and test(line)))

    def _note(self, what: str, victims: list[Line]) -> None:
        places = " ".join(_place(each) for each in victims)
        self.done.append(f"{time.monotonic() - self._began:.1f} {what} {places}")


def key_of(line: Line) -> RoundKey:
    """Return the round that a member tells of, with those who were in it."""
    return line["round"], tuple(line["members"])


def completed(line: Line) -> bool:
    """Tell whether the coordinator says that the job is done."""
    return line["event"] == "log" and line["text"].startswith("dssync completed")


def _signal(pid: int, number: signal.Signals) -> bool:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False  # It ended by itself while the dice fell.
    return True


def _place(line: Line) -> str:
    return f"{line['slot']}.{line['rank']}."
