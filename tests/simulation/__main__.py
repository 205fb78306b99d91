"""Run seeds: ``PYTHONPATH=tests python -m simulation --seeds 1000``, or one with ``--seed 7``.

One seed prints its faults, with ``--trace`` what every state machine takes in, and with
``--shrink`` the fewest of its faults that still make it fail. The same seed, profile and faults
always give the same trace; its digest is in the last line. ``--mutants`` tells which seed catches
each deliberate bug first.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterable
from functools import partial

from simulation.coverage import Coverage
from simulation.mutants import MUTANTS, first_catch
from simulation.profile import MIXED, PROFILES, Profile
from simulation.run import Outcome, Protocol, Simulation
from simulation.violation import ViolationError


def main() -> int:
    parser = argparse.ArgumentParser(prog="simulation", description="Simulate the control plane.")
    parser.add_argument("--seeds", type=int, default=300, help="number of seeds (default 300)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (default 0)")
    parser.add_argument("--profile", choices=PROFILES, default=MIXED.name, help="kinds of faults")
    parser.add_argument("--seed", type=int, help="run this seed alone and tell what happens")
    parser.add_argument("--trace", action="store_true", help="with --seed: print every event")
    parser.add_argument("--shrink", action="store_true", help="with --seed: leave out faults")
    parser.add_argument("--omit", type=int, nargs="*", default=[], help="with --seed: faults")
    parser.add_argument("--mutants", action="store_true", help="find each deliberate bug")
    given = parser.parse_args()
    profile = PROFILES[given.profile]
    if given.mutants:
        return _catch_all()
    if given.seed is None:
        return _run(range(given.first, given.first + given.seeds), profile)
    omitted = frozenset(given.omit)
    if given.shrink:
        omitted = shrink(given.seed, profile)
        print(f"the same failure with --omit {' '.join(map(str, sorted(omitted)))}")
    return _tell(given.seed, profile, omitted, trace=given.trace)


def _tell(seed: int, profile: Profile, omitted: frozenset[int], *, trace: bool) -> int:
    simulation = Simulation(seed, trace=print if trace else None, profile=profile, omitted=omitted)
    try:
        last: object = simulation.run()
        failed = False
    except ViolationError as error:
        last, failed = f"seed {seed} FAILS: {error}", True
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
    print(*simulation.faults.log, last, sep="\n")
    return 1 if failed else 0


def shrink(seed: int, profile: Profile, protocol: Protocol | None = None) -> frozenset[int]:
    """Return as many faults as can be left out, one by one, while the seed still fails."""
    omitted: frozenset[int] = frozenset()
    for fault in range(Simulation(seed, profile=profile).faults.planned + 1):
        if _fails(seed, profile, protocol, omitted | {fault}):
            omitted |= {fault}
    return omitted


def _fails(seed: int, profile: Profile, protocol: Protocol | None, omitted: frozenset[int]) -> bool:
    try:
        Simulation(seed, protocol, profile=profile, omitted=omitted).run()
    except ViolationError:
        return True
    return False


def _run(seeds: range, profile: Profile) -> int:
    started, coverage, outcomes, failed = time.monotonic(), Coverage(), [], 0
    chunks = [seeds[at : at + 16] for at in range(0, len(seeds), 16)]
    gc.disable()
    gc.freeze()
    # A process for each chunk: its end frees in an instant what collecting would walk through.
    with multiprocessing.Pool(os.cpu_count(), maxtasksperchild=1) as pool:
        for found, errors, reached in pool.imap_unordered(partial(_some, profile), chunks):
            coverage.merge(reached)
            outcomes += found
            failed += len(errors)
            for error in errors:
                print(error, flush=True)
    passed = report(outcomes, failed, time.monotonic() - started)
    print(coverage.report())
    return 0 if passed else 1


def _some(profile: Profile, seeds: Iterable[int]) -> tuple[list[Outcome], list[str], Coverage]:
    """Run some seeds in a process of their own; little is garbage before the end of each."""
    outcomes, errors, coverage = [], [], Coverage()
    for seed in seeds:
        simulation = Simulation(seed, profile=profile)
        try:
            outcomes.append(simulation.run())
        except ViolationError as error:
            errors.append(f"seed {seed} FAILS: {error}")
        coverage.merge(simulation.coverage)
    return outcomes, errors, coverage


def report(outcomes: list[Outcome], failed: int, seconds: float) -> bool:
    """Tell what seeds were and which show too little; return whether all is well."""
    count = len(outcomes) + failed
    events, faults = sum(o.events for o in outcomes), sum(o.faults for o in outcomes)
    print(f"{count} seeds in {seconds:.1f} s: {count / seconds:.1f} seeds/s, {failed} failed")
    rounds, terms = sum(o.rounds_applied for o in outcomes), sum(o.terms for o in outcomes)
    print(f"{events} events, {faults} faults, {rounds} rounds, {terms} terms")
    if outcomes:
        members, events = min(o.members for o in outcomes), min(o.events for o in outcomes)
        faults = min(o.faults for o in outcomes)
        print(f"each seed has at least {members} members, {events} events and {faults} faults")
    lacking = [each for each in outcomes if each.lacks]
    for each in lacking:
        print(f"seed {each.seed} SHOWS TOO LITTLE: {each.lacks}")
    return not (failed or lacking)


def _catch_all() -> int:
    with multiprocessing.Pool(os.cpu_count()) as pool:
        caught = pool.imap_unordered(_catch, MUTANTS)
        return 1 if not all([_told(*each) for each in caught]) else 0


def _catch(name: str) -> tuple[str, int | None, str]:
    return name, *first_catch(MUTANTS[name], 0)


def _told(name: str, seed: int | None, error: str) -> bool:
    print(f"{name}: seed {seed}: {error[:100]}", flush=True)
    return seed is not None


if __name__ == "__main__":
    sys.exit(main())
