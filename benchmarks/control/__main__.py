"""``make bench-control``: up to 1,000 fake members against one coordinator over real sockets."""

import argparse
import gc
import os
import random
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.control.load import Load
from benchmarks.control.server import TOKEN
from benchmarks.publish import OUTPUT, machine, plot_distributions, publish, versions
from benchmarks.results import Bar, Figure, Report, at_least, at_most, figure

COMMAND: Final = "make bench-control"
SIZES: Final = (100, 250, 500, 1000)
ASSIGNMENTS_PER_SECOND: Final = 2000.0
BEATS_PER_SECOND: Final = 4000.0
"""Those of 1,000 launchers; fewer launchers send as many, so that only their number differs."""
WARM_SECONDS: Final = 3.0
READY_SECONDS: Final = 60.0
SEED: Final = 1
_TICKS: Final = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """What one number of members has shown."""

    members: int
    waits_milliseconds: Sequence[float]
    """From the appointed time of a round to the arrival of what the next one needs."""
    sent_late_milliseconds: Sequence[float]
    """By how much the load itself was late; in the waits as well."""
    read_late_milliseconds: Sequence[float]
    """How long what had arrived was left unread; not in the waits."""
    assigned_per_second: float
    bytes_per_round: float
    """Of the replies to a member: its assignment and its leases."""
    processor_microseconds: float
    """Of the coordinator, per member and round."""


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def run(size: int, rate: float, seconds: float, profile: str = "") -> Case:
    """Let ``size`` members do ``rate`` rounds a second together, each at its own even pace."""
    extra = ["--profile", profile] if profile else []
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.control.server", str(size), *extra],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        host, _, port = server.stdout.readline().strip().rpartition(":")
        load = Load(size, (host, int(port)), TOKEN, size / BEATS_PER_SECOND)
        return _drive(load, rate / size, seconds, server.pid)
    finally:
        server.stdin.close()
        server.wait(30)


def _drive(load: Load, pace: float, seconds: float, pid: int) -> Case:
    load.run_until(lambda member: member.is_ready, READY_SECONDS)
    load.register()
    # Pauses of the load's own collector would be counted as the coordinator's.
    gc.collect()
    gc.disable()
    random_ = random.Random(SEED)
    start = time.time() + 1.0
    load.keep_pace([start + random_.random() / pace for _ in load.members], 1 / pace)
    load.run(start + WARM_SECONDS)
    used = processor_seconds(pid)
    load.measure()
    load.run(start + WARM_SECONDS + seconds)
    used = processor_seconds(pid) - used
    load.close()
    gc.enable()
    return _case(load, seconds, used)


def _case(load: Load, seconds: float, used_seconds: float) -> Case:
    seen = [member.seen for member in load.members]
    assigned = sum(each.assigned for each in seen)
    return Case(
        members=len(seen),
        waits_milliseconds=[1000 * wait for each in seen for wait in each.waits_seconds],
        sent_late_milliseconds=[1000 * each for each in load.lateness.sending],
        read_late_milliseconds=[1000 * each for each in load.lateness.reading],
        assigned_per_second=assigned / seconds,
        bytes_per_round=sum(each.bytes_received for each in seen) / assigned,
        processor_microseconds=1e6 * used_seconds / assigned,
    )


def figures(case: Case) -> list[Figure]:
    """Return what a case adds to the report."""
    name = f"{case.members} members"
    many = [
        ("coordinator", "wait for assignment and lease", case.waits_milliseconds),
        ("load", "sent after its appointed time", case.sent_late_milliseconds),
        ("load", "read after its arrival", case.read_late_milliseconds),
    ]
    one: list[tuple[str, str, float]] = [
        ("assignments", "1/s", case.assigned_per_second),
        ("replies per member and round", "bytes", case.bytes_per_round),
        ("processor time per member and round", "µs", case.processor_microseconds),
    ]
    return [
        *(figure(name, subject, metric, "ms", values) for subject, metric, values in many),
        *(figure(name, "coordinator", metric, unit, [value]) for metric, unit, value in one),
    ]


def bars(cases: Sequence[Case], rate: float) -> list[Bar]:
    """Return the promises about the largest case, and about growth."""
    small, large = cases[0], cases[-1]
    waits = figure("", "", "", "ms", large.waits_milliseconds)
    cost = large.processor_microseconds / small.processor_microseconds
    size = large.bytes_per_round / small.bytes_per_round
    growth = f"{large.members} / {small.members} members"
    return [
        # A round at the edge of the window may fall outside it.
        at_least("assignments_per_second", large.assigned_per_second, 0.99 * rate, "1/s"),
        at_most("assignment_p99", waits.p99, 10.0, "ms"),
        at_most(f"cost of a round, {growth}", cost, 1.2, ""),
        at_most(f"bytes of a round, {growth}", size, 1.2, ""),
    ]


def main() -> None:
    """Run, print the table, write build/bench/control.json, its plot and docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--rate", type=float, default=ASSIGNMENTS_PER_SECOND)
    parser.add_argument("--profile", default="", help="write the coordinator's profile here")
    parser.add_argument("--dry", action="store_true", help="print the figures, publish nothing")
    given = parser.parse_args()
    cases = []
    for size in given.sizes:
        cases.append(run(size, given.rate, given.seconds, given.profile))
        for each in figures(cases[-1]):
            print(f"{each.case}, {each.metric}: median {each.median:.3g}, p99 {each.p99:.3g}")
    if given.dry:
        return
    plot_distributions(
        OUTPUT / "control.svg",
        f"Wait for assignment and lease, {given.rate:g} rounds a second in all",
        "ms",
        {f"{case.members} members": case.waits_milliseconds for case in cases},
    )
    publish(
        Report(
            name="control",
            command=COMMAND,
            machine=machine(),
            versions=versions(),
            figures=[each for case in cases for each in figures(case)],
            bars=bars(cases, given.rate),
        )
    )


if __name__ == "__main__":
    main()
