"""How long torchrun takes to train again after one worker was killed.

Each worker has an agent of its own, as pods have; all meet at a c10d rendezvous on this machine.
Three ways of calling it are measured: elastic with default settings, elastic with the shortest
times, and with a fixed number of nodes, where no rendezvous waits for late-comers. The last two
also opt out of the store that agents share with workers: in torch 2.15 it is kept for the next
rendezvous with the addresses of the last one, and a worker that reads a peer's old address before
the peer has written its new one fails, so that all of them start once more.

    python -m benchmarks.reform.torchrun_peer --megabytes 1 16 --kills 3
"""

import argparse
import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.publish import ROOT, machine, publish, versions
from benchmarks.reform.log import Step, StepReader, reformed
from benchmarks.results import Figure, Report, figure
from dssync import contract
from dssync.local.processes import run_folder

NAME: Final = "reform-torchrun"
WARM_ROUNDS: Final = 20
"""Rounds that every worker completes before each kill."""
POLL_SECONDS: Final = 0.1
"""How often logs are read; times come from inside the logs."""
PATIENCE_SECONDS: Final = 180.0
"""Who has not recovered by then is written down with this time."""
METRIC: Final = f"kill to first round of all workers, {PATIENCE_SECONDS:g} s at most"
VICTIM: Final = "3"


@dataclass(frozen=True)
class Subject:
    """One way of calling torchrun."""

    name: str
    nodes: str
    rendezvous: str
    environment: Mapping[str, str]


def subjects(workers: int) -> tuple[Subject, ...]:
    """Return the ways of calling torchrun that are compared."""
    tuned = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
    own_store = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return (
        Subject("torchrun, default", f"2:{2 * workers}", "join_timeout=600", {}),
        Subject("torchrun, tuned", f"2:{2 * workers}", tuned, own_store),
        Subject("torchrun, fixed size", str(workers), tuned, own_store),
    )


class Run:
    """Agents of one subject at work."""

    def __init__(self, subject: Subject, members: Sequence[str], folder: Path, uid: str) -> None:
        self._subject = subject
        self._members = frozenset(members)
        self._folder = folder
        self._uid = uid
        self._reader = StepReader(folder)
        self._agents: list[subprocess.Popen[bytes]] = []

    def start(self, payload_bytes: int) -> None:
        """Start all agents; what they say goes into a file of the run folder."""
        endpoint = f"127.0.0.1:{_free_port()}"
        with (self._folder / "agents.txt").open("wb") as output:
            for member in sorted(self._members):
                self._agents.append(
                    subprocess.Popen(
                        self._command(endpoint, member, payload_bytes),
                        cwd=ROOT,
                        env=self._environment(member),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    async def until_warm(self) -> None:
        """Wait until every worker has completed some rounds from now on."""
        start, counts = time.monotonic(), dict.fromkeys(self._members, 0)
        while min(counts.values()) < WARM_ROUNDS:
            if time.monotonic() - start > PATIENCE_SECONDS:
                raise RuntimeError(f"no world within {PATIENCE_SECONDS:g} s: {self._said()}")
            for step in await self._next():
                counts[step.member] += step.ok

    async def kill(self) -> float:
        """Kill one worker; return the seconds until all have completed a round again.

        ``PATIENCE_SECONDS`` is the most that is waited for and returned.
        """
        killed_at = time.monotonic()
        os.kill(self._pid(VICTIM), signal.SIGKILL)
        steps: list[Step] = []
        while (seconds := reformed(steps, killed_at, self._members)) is None:
            if time.monotonic() - killed_at > PATIENCE_SECONDS:
                return PATIENCE_SECONDS
            steps += await self._next()
        return seconds

    def stop(self) -> None:
        """Kill the agents; their workers end with the run folder."""
        for agent in self._agents:
            agent.kill()
        for agent in self._agents:
            agent.wait()

    async def _next(self) -> list[Step]:
        await asyncio.sleep(POLL_SECONDS)
        if any(agent.poll() is not None for agent in self._agents):
            raise RuntimeError(f"an agent ended: {self._said()}")
        return self._reader.new()

    def _said(self) -> str:
        text = (self._folder / "agents.txt").read_text(errors="replace")
        return f"{self._subject.name}; the agents said:\n{text[-2000:]}"

    def _environment(self, member: str) -> Mapping[str, str]:
        own = {"MEMBER": member, contract.ENV_JOB_UID: self._uid}
        return {**os.environ, **self._subject.environment, **own}

    def _pid(self, member: str) -> int:
        """Process id of the worker that wrote last, from the name of its log."""
        logs = self._folder.glob(f"{member}.*.jsonl")
        return int(max(logs, key=lambda path: path.stat().st_mtime_ns).name.split(".")[1])

    def _command(self, endpoint: str, member: str, payload_bytes: int) -> Sequence[str]:
        is_host = member == min(self._members)
        return (
            *(sys.executable, "-m", "torch.distributed.run"),
            *("--nnodes", self._subject.nodes, "--nproc-per-node", "1", "--max-restarts", "1000"),
            *("--rdzv-backend", "c10d", "--rdzv-id", self._uid, "--rdzv-endpoint", endpoint),
            *("--rdzv-conf", f"{self._subject.rendezvous},is_host={int(is_host)}"),
            *("--module", "benchmarks.reform.torchrun_worker"),
            *(str(self._folder), str(payload_bytes)),
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def one_kill(subject: Subject, megabytes: int, workers: int) -> float:
    """Start everything, kill once, end everything; return the seconds of the re-forming."""
    uid = str(uuid.uuid4())
    async with run_folder(uid) as folder:
        run = Run(subject, [str(index) for index in range(workers)], folder, uid)
        run.start(megabytes * 2**20)
        try:
            await run.until_warm()
            seconds = await run.kill()
        finally:
            run.stop()
    print(f"{subject.name}, {megabytes} MB: {seconds:.2f} s", flush=True)
    return seconds


async def measure(subject: Subject, megabytes: int, workers: int, kills: int) -> Figure:
    """Return the times of some kills under one subject, each of a run of its own."""
    seconds = [await one_kill(subject, megabytes, workers) for _ in range(kills)]
    return figure(f"SIGKILL of 1 of {workers}, {megabytes} MB", subject.name, METRIC, "s", seconds)


async def main(args: argparse.Namespace) -> None:
    figures = [
        await measure(subject, megabytes, args.workers, args.kills)
        for megabytes in args.megabytes
        for subject in subjects(args.workers)
    ]
    command = " ".join(["python -m benchmarks.reform.torchrun_peer", *sys.argv[1:]])
    publish(Report(NAME, command, machine(), versions("torch"), figures))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--kills", type=int, default=3)
    return parser.parse_args()


if __name__ == "__main__":
    asyncio.run(main(parse_args()))
