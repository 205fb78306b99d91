"""Takes pods away, by SIGKILL and by SIGTERM, and lets new ones join in their place."""

import asyncio
import os
import signal
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.reform.records import History, first_hit, reformed_seconds, retries_elsewhere
from benchmarks.reform.sockets import bytes_per_second
from benchmarks.reform.world import TIMEOUT_SECONDS, Shape, World, world

PODS = 4
CALM_ROUNDS = 40
"""Undisturbed rounds that the rounds beside a join are compared with."""
UNDER_WAY = 64
"""Batches that eight members may hold when training is stopped."""


@dataclass
class Pods:
    """Measurements, in seconds unless said otherwise."""

    losses: list[float] = field(default_factory=list)
    """From the SIGKILL of a launcher and its workers to the last survivor's commit."""
    drains: list[float] = field(default_factory=list)
    """From SIGTERM at a launcher to the end of its last worker's training."""
    joins: list[float] = field(default_factory=list)
    """From a worker that is ready to the end of its first round."""
    stalls: list[float] = field(default_factory=list)
    """What a join cost the other members, each, in rounds."""
    cycles: list[float] = field(default_factory=list)
    """Of the undisturbed world, from one round's end to the next one's."""
    retries_elsewhere: int = 0
    wrong_results: int = 0
    batches_lost: int = 0
    """Batches of the drained world that were not trained on exactly once."""
    socket_rate: float = 0.0
    """Bytes per second of a bare socket beside the running world."""


async def lose_pods(found: Pods, payload_bytes: int, losses: int) -> None:
    """Kill one pod after the other, never the coordinator's."""
    async with world(Shape(PODS, 2, payload_bytes)) as run:
        await run.until_quiet()
        slots = [s for s in range(PODS) if s != run.coordinating_slot]
        for number in range(losses):
            await _lose(run, found, slots[number % len(slots)])
        found.wrong_results += len(run.history.wrong())


async def _lose(run: World, found: Pods, slot: int) -> None:
    history, victims = run.history, run.of_slot(slot)
    survivors = frozenset(run.members).difference(victims)
    since = max(history.latest[v].round for v in victims)
    launcher = run.launchers[slot]
    launcher.kill()
    killed = run.kill(victims)

    def noticed() -> bool:
        return all(first_hit(history, v, survivors) is not None for v in victims)

    await run.until(noticed, f"after the loss of slot {slot}")
    hits = [hit for v in victims if (hit := first_hit(history, v, survivors)) is not None]
    found.losses.append(max(reformed_seconds(history, hit, victims, killed) for hit in hits))
    await launcher.wait()
    await run.start_pod(slot)
    await run.until_quiet()
    found.retries_elsewhere += retries_elsewhere(history, since, victims, hits)


async def drain_pods(found: Pods, payload_bytes: int, drains: int) -> None:
    """Drain one pod after the other and let another one join; then stop training."""
    async with world(Shape(PODS, 2, payload_bytes)) as run:
        await run.until_quiet()
        found.socket_rate = await bytes_per_second(max(payload_bytes, 64 << 20))
        await run.until_quiet()
        slots = [s for s in range(PODS) if s != run.coordinating_slot]
        for number in range(drains):
            await _drain(run, found, slots[number % len(slots)])
        await _finish(run)
        history = run.history
        found.wrong_results += len(history.wrong())
        found.retries_elsewhere += sum(
            bool(r.attempts) for each in history.rounds.values() for r in each.values()
        )
        found.batches_lost += batches_lost(history.batches())


async def _drain(run: World, found: Pods, slot: int) -> None:
    history, leavers = run.history, run.of_slot(slot)
    found.cycles += run.steady_cycles()
    others = frozenset(run.members).difference(leavers)
    launcher, told = run.launchers[slot], time.monotonic()
    launcher.send_signal(signal.SIGTERM)
    await run.until(lambda: all(m in history.left for m in leavers), f"the drain of slot {slot}")
    found.drains.append(max(history.left[m] for m in leavers) - told)
    await launcher.wait()
    await run.start_pod(slot)
    await run.until_quiet()
    joiners = run.of_slot(slot)
    found.joins += [history.joined[m] - history.ready[m] for m in joiners]
    window = min(history.ready[m] for m in joiners), max(history.joined[m] for m in joiners)
    # A few rounds differ by more than the bar allows, and the window holds many.
    await run.until_quiet(CALM_ROUNDS)
    cycle = statistics.fmean(run.steady_cycles(CALM_ROUNDS - 1))
    found.stalls += stalls(history, others, window, cycle)


async def _finish(run: World) -> None:
    """Let a worker ask for the end of training, and see that everybody ends well."""
    os.kill(run.history.pids[run.members[0]], signal.SIGUSR1)
    async with asyncio.timeout(TIMEOUT_SECONDS):
        for launcher in run.launchers.values():
            if await launcher.wait() != 0:
                raise RuntimeError(f"a launcher failed:\n{run.said()[-3000:]}")


def batches_lost(batches: Sequence[int]) -> int:
    """Count batches that were trained on twice, or not at all although later ones were."""
    distinct = set(batches)
    settled = range(max(distinct) - UNDER_WAY)
    return len(batches) - len(distinct) + sum(each not in distinct for each in settled)


def stalls(
    history: History, members: Iterable[str], window: tuple[float, float], cycle: float
) -> list[float]:
    """Return for each member how many rounds it fell behind in a window of time.

    The rounds that touch the window are compared with as many undisturbed ones.
    """
    lost = []
    for member in members:
        times = [r.time for r in history.by_member[member]]
        begin = max(t for t in times if t <= window[0])
        end = min(t for t in times if t >= window[1])
        count = sum(begin < t <= end for t in times)
        lost.append((end - begin) / cycle - count)
    return lost
