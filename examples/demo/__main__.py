"""``make demo``: digits with six workers in groups of three; one dies, one joins, one drains.

Runs ``examples/digits/job.yaml`` as ``dssync local`` does, follows what the launchers say, and
compares the mean model with the same run in mode ``allreduce`` without faults.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import yaml

from dssync.local.manifest import Manifest, load
from dssync.local.run import LocalJob
from examples.demo.story import Line, Story
from examples.demo.table import print_table, shortcomings
from examples.demo.tally import tally
from examples.demo.witness import VARIABLE, names_of
from examples.digits.train import load as load_digits

DIGITS: Final = Path(__file__).parents[1] / "digits"
BUILD: Final = Path("build/demo").absolute()
LOG: Final = BUILD / "launchers.log"
SAMPLES: Final = BUILD / "samples.jsonl"
"""What each training loop was given, in its own words."""
WITNESS: Final = Path(__file__).with_name("witness.py")
EPOCHS: Final = 80
"""Enough for a new pod to import torch beside six that train on two cores."""
KILLED_SLOT, JOINED_SLOT = 2, 6
DRAINED_SLOTS = (4, 5)
"""The first of them that does not coordinate: a coordinator's drain is a hand-over besides."""


def manifest() -> tuple[Manifest, Path]:
    """Return the example's manifest, longer than usual, and where it writes its result."""
    document = yaml.safe_load((DIGITS / "job.yaml").read_text())
    result = BUILD / "grid.json"
    container = document["spec"]["template"]["spec"]["containers"][0]
    *command, _ = container["command"]
    container["command"] = [*command, "--commit", "strict", str(WITNESS)]
    container["args"] = ["--epochs", str(EPOCHS), "--out", str(result)]
    container["env"] = [{"name": VARIABLE, "value": str(SAMPLES)}]
    path = BUILD / "job.yaml"
    path.write_text(yaml.safe_dump(document))
    return load(path), result


class Output:
    """What the pods write: kept in a file, and parsed into a story."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self._read, self._write = os.pipe()
        self._kept = os.dup(2)

    async def __aenter__(self) -> "Output":
        # Pods inherit the standard streams of this process.
        os.dup2(self._write, 2)
        os.close(self._write)
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        pipe = os.fdopen(self._read, "rb", buffering=0)
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), pipe
        )
        self._transport = transport
        self._task = asyncio.create_task(self._follow(reader))
        return self

    async def __aexit__(self, *_: object) -> None:
        os.dup2(self._kept, 2)
        os.close(self._kept)
        await self._task
        self._transport.close()

    async def _follow(self, reader: asyncio.StreamReader) -> None:
        with LOG.open("wb") as log:
            while data := await reader.readline():
                log.write(data)
                line = Line.parse(data.decode(errors="replace").rstrip())
                if line is not None:
                    self._story.add(line)


async def train_with_faults() -> tuple[Story, dict[str, float]]:
    """Run the job to its end; return what happened and what it wrote."""
    story = Story()
    job_manifest, result = manifest()
    async with Output(story), LocalJob(job_manifest, DIGITS, report=lambda _: None) as job:
        watch = asyncio.create_task(show_progress(story))
        await inflict(story, job)
        outcome = await job.wait()
        watch.cancel()
    if not result.exists():
        sys.exit(f"demo: the run ended as {outcome} and wrote no result")
    return story, json.loads(result.read_text())


async def inflict(story: Story, job: LocalJob) -> None:
    """Want one more pod, kill a worker while that one starts, then drain a launcher."""
    await story.until("a world of 6", lambda: len(story.members) == 6)
    await story.until_round(20)
    join = story.begin("join", JOINED_SLOT)
    job.scale(7)
    await story.until_round(60)
    kill = story.begin("kill", KILLED_SLOT)
    os.kill(story.pid_of_slot(KILLED_SLOT), signal.SIGKILL)
    await story.until("a re-formed group", lambda: story.reformed(kill))
    await story.until("a return", lambda: story.joined_since(kill, KILLED_SLOT))
    await story.until("a join", lambda: story.joined_since(join, JOINED_SLOT))
    slot = next(each for each in DRAINED_SLOTS if each != story.coordinating_slot)
    drain = story.begin("drain", slot)
    job.signal(slot, signal.SIGTERM)
    await story.until("a drain", lambda: story.drained(drain))


def every_sample_once() -> bool:
    """Tell whether each epoch's committed samples are exactly the data set."""
    train, _ = load_digits(fold=0)
    expected = Counter({name: EPOCHS * n for name, n in Counter(names_of(*train.tensors)).items()})
    return tally([json.loads(line) for line in SAMPLES.read_text().splitlines()]).explains(expected)


def train_with_allreduce() -> dict[str, float]:
    """Run the same training with everybody in one group and no faults."""
    result = BUILD / "allreduce.json"
    print("the same with allreduce and no faults …", flush=True)
    subprocess.run(
        [
            *(sys.executable, "-m", "dssync.cli", "run", "--standalone", "--nproc-per-node", "6"),
            *("--mode", "allreduce", str(DIGITS / "train.py")),
            *("--epochs", str(EPOCHS), "--out", str(result)),
        ],
        check=True,
        stderr=subprocess.DEVNULL,
    )
    figures: dict[str, float] = json.loads(result.read_text())
    return figures


async def show_progress(story: Story) -> None:
    """Say once a second where the run is."""
    while True:
        await asyncio.sleep(1)
        await story.look()
        print(f"round {story.round}, {len(story.members)} members", flush=True)


def main() -> None:
    """Run both jobs, print the table, write ``build/demo.json``; fail if a promise was not kept."""
    started = time.monotonic()
    BUILD.mkdir(parents=True, exist_ok=True)
    SAMPLES.unlink(missing_ok=True)
    try:
        story, result = asyncio.run(train_with_faults())
    except TimeoutError as error:
        sys.exit(f"demo: {error}; what the launchers said is in {LOG}")
    baseline = train_with_allreduce()
    report = {
        "events": [event.report(story) for event in story.events],
        "survivors_restarted": story.survivors_restarted(),
        "samples_seen_once": every_sample_once(),
        "accuracy": result["accuracy"],
        "accuracy_allreduce": baseline["accuracy"],
        "seconds": round(time.monotonic() - started, 1),
    }
    Path("build/demo.json").write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)
    found = shortcomings(report)
    if found:
        sys.exit(f"demo: {' and '.join(found)}; what the launchers said is in {LOG}")


if __name__ == "__main__":
    main()
