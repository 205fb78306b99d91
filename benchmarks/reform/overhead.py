"""What a round costs over a bare all-reduce of the same group."""

import asyncio
import json
import os
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from dssync import contract
from dssync.local.processes import run_folder

SCRIPT: Final = str(Path(__file__).with_name("pairs.py"))
TIMEOUT_SECONDS: Final = 300

Half = tuple[float, float]


@dataclass
class Overhead:
    """Seconds of the halves of pairs, in the order of the pairs; one value for each group."""

    rounds: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)

    def add(self, lines: Sequence[Mapping[str, Half]]) -> None:
        """Take in one pair of one group: what its members wrote."""
        self.rounds.append(duration([line["round"] for line in lines]))
        self.bare.append(duration([line["bare"] for line in lines]))


def duration(halves: Sequence[Half]) -> float:
    """Return the time from when the last member was ready to when the last one was done."""
    return max(end for _, end in halves) - max(begun for begun, _ in halves)


async def measure(
    payload_bytes: int, pairs: int, workers: int, commit: str = "relaxed"
) -> Overhead:
    """Run pairs in a world of its own.

    Raises:
        RuntimeError: the world failed.
    """
    uid = f"bench-{os.urandom(8).hex()}"
    async with run_folder(uid) as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "dssync.cli", "run", "--standalone"),
            *("--nproc-per-node", str(workers), "--mode", "pool", "--group-size", "4"),
            *("--commit", commit),
            *(SCRIPT, str(folder), str(payload_bytes), str(pairs)),
            env={**os.environ, contract.ENV_JOB_UID: uid},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(TIMEOUT_SECONDS):
            said, _ = await process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"the world of pairs failed:\n{said.decode()[-3000:]}")
        return _read(folder)


def _read(folder: Path) -> Overhead:
    lines: dict[tuple[int, tuple[str, ...]], list[Mapping[str, Half]]] = defaultdict(list)
    for path in folder.glob("*.jsonl"):
        for text in path.read_text().splitlines():
            line = json.loads(text)
            lines[line["pair"], tuple(line["members"])].append(line)
    found = Overhead()
    for key in sorted(lines):
        found.add(lines[key])
    return found
