"""Run seeds: ``PYTHONPATH=tests python -m simulation --seeds 1000``, or one with ``--seed 7``.

One seed prints its faults, and with ``--trace`` every message of a member as the coordinator sees
it. The same seed always gives the same trace; its digest is in the last line.
"""

import argparse
import multiprocessing
import os
import sys
import time
from functools import partial

from simulation.coverage import Coverage
from simulation.run import Outcome, Simulation
from simulation.violation import ViolationError


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description="Simulate the control plane.")
    parser.add_argument("--seeds", type=int, default=300, help="number of seeds (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--seed", type=int, help="run this seed alone and tell what happens")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every message")
    parser.add_argument("--takeovers", action="store_true", help="lose coordinators, too")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return _tell(arguments.seed, trace=arguments.trace, takeovers=arguments.takeovers)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    return _run(seeds, takeovers=arguments.takeovers)


def _tell(seed: int, *, trace: bool, takeovers: bool) -> int:
    simulation = Simulation(seed, trace=print if trace else None, takeovers=takeovers)
    try:
        outcome = simulation.run()
    except ViolationError as error:
        print(*simulation.faults.log, f"seed {seed} FAILS: {error}", sep="\n")
        return 1
    print(*simulation.faults.log, outcome, sep="\n")
    return 0


def _run(seeds: range, *, takeovers: bool) -> int:
    started, coverage, outcomes, failed = time.monotonic(), Coverage(), [], 0
    one = partial(_one, takeovers=takeovers)
    with multiprocessing.Pool(os.cpu_count()) as pool:
        for outcome, error, reached in pool.imap_unordered(one, seeds, chunksize=8):
            coverage.merge(reached)
            if outcome is None:
                failed += 1
                print(error, flush=True)
            else:
                outcomes.append(outcome)
    _report(outcomes, failed, time.monotonic() - started)
    print(coverage.report())
    return 1 if failed else 0


def _one(seed: int, *, takeovers: bool) -> tuple[Outcome | None, str, Coverage]:
    simulation = Simulation(seed, takeovers=takeovers)
    try:
        return simulation.run(), "", simulation.coverage
    except ViolationError as error:
        return None, f"seed {seed} FAILS: {error}", simulation.coverage


def _report(outcomes: list[Outcome], failed: int, seconds: float) -> None:
    count = len(outcomes) + failed
    events, faults = sum(o.events for o in outcomes), sum(o.faults for o in outcomes)
    print(f"{count} seeds in {seconds:.1f} s: {count / seconds:.1f} seeds/s, {failed} failed")
    print(f"{events} events, {faults} faults, {sum(o.rounds_applied for o in outcomes)} rounds")


if __name__ == "__main__":
    sys.exit(main())
