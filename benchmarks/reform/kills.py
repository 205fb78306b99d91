"""Kills workers one after the other and measures how the rest goes on, and how the next joins."""

import asyncio
import random
import statistics
from dataclasses import dataclass, field

from benchmarks.reform.records import first_hit, reformed_seconds, retries_elsewhere
from benchmarks.reform.sockets import bytes_per_second
from benchmarks.reform.world import Shape, World, world


@dataclass
class Killed:
    """Measurements of one payload, in seconds unless said otherwise."""

    reform: list[float] = field(default_factory=list)
    rounds: list[float] = field(default_factory=list)
    """Of the undisturbed world, each member's wall time inside ``step``."""
    cycles: list[float] = field(default_factory=list)
    """Of the undisturbed world, from one round's end to the next one's."""
    joins: list[float] = field(default_factory=list)
    """From a worker that is ready to the end of its first round."""
    retries_elsewhere: int = 0
    wrong_results: int = 0
    socket_rate: float = 0.0
    """Bytes per second of a bare socket beside the running world."""


async def kill_workers(payload_bytes: int, kills: int, seed: int = 0) -> Killed:
    """Kill random workers at random moments of a round, each in a quiet world."""
    found, choice = Killed(), random.Random(seed)
    async with world(Shape(payload_bytes=payload_bytes)) as run:
        await run.until_quiet()
        # A worker's own restart is warm from here on; the first rounds are not.
        found.socket_rate = await bytes_per_second(max(payload_bytes, 64 << 20))
        await run.until_quiet()
        for number in range(kills):
            await _one_kill(run, found, choice)
            if number % 20 == 19:
                print(f"  {number + 1} kills, p50 {statistics.median(found.reform):.3f} s")
        found.wrong_results = len(run.history.wrong())
    return found


async def _one_kill(run: World, found: Killed, choice: random.Random) -> None:
    history = run.history
    cycles = run.steady_cycles()
    found.cycles += cycles
    found.rounds += [history.latest[m].seconds for m in run.members]
    # Any moment of a round may be hit, so the moment is drawn from one.
    await asyncio.sleep(choice.uniform(0, statistics.median(cycles)))
    victim = choice.choice(run.members)
    survivors = frozenset(run.members) - {victim}
    since = history.latest[victim].round
    killed = run.kill([victim])
    place = victim.rpartition(".")[0]
    await run.until(lambda: first_hit(history, victim, survivors) is not None, f"after {victim}")
    hit = first_hit(history, victim, survivors)
    assert hit is not None
    found.reform.append(reformed_seconds(history, hit, (victim,), killed))
    await run.until_quiet()
    found.retries_elsewhere += retries_elsewhere(history, since, (victim,), (hit,))
    joiner = next(m for m in run.members if m.rpartition(".")[0] == place)
    found.joins.append(history.joined[joiner] - history.ready[joiner])
