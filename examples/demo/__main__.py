"""``make demo``: digits with six workers in groups of three; one dies, one joins, one drains.

Runs ``examples/digits/job.yaml`` as ``dssync local`` does, follows what the launchers say, and
compares the mean model with the same run in mode ``allreduce`` without faults.
"""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

import yaml

from dssync.local.manifest import Manifest, load
from dssync.local.run import LocalJob
from examples.demo.story import Line, Story
from examples.demo.table import print_table

DIGITS: Final = Path(__file__).parents[1] / "digits"
BUILD: Final = Path("build/demo").absolute()
EPOCHS: Final = 60
KILLED_SLOT, DRAINED_SLOT = 2, 4
"""Slots 0 and 1 stay: the first launcher coordinates, and this build has no take-over."""


def manifest(name: str, epochs: int, mode: str) -> tuple[Manifest, Path]:
    """Return the example's manifest for a run of its own, and where it writes its result."""
    document = yaml.safe_load((DIGITS / "job.yaml").read_text())
    result = BUILD / f"{name}.json"
    document["metadata"]["name"] = name
    document["spec"]["sync"]["mode"] = mode
    container = document["spec"]["template"]["spec"]["containers"][0]
    container["args"] = ["--epochs", str(epochs), "--out", str(result)]
    path = BUILD / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return load(path), result


class Output:
    """What the pods write: parsed into a story, and passed on where a person may act on it."""

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
        while data := await reader.readline():
            text = data.decode(errors="replace").rstrip()
            line = Line.parse(text)
            if line is not None:
                self._story.add(line)
                (BUILD / "log").open("a").write(text + "\n")
            elif text:
                os.write(self._kept, data)


async def train(name: str, mode: str, faults: bool) -> tuple[Story, dict[str, float]]:
    """Run the job to its end; return what happened and what it wrote."""
    story = Story()
    job_manifest, result = manifest(name, EPOCHS, mode)
    async with Output(story), LocalJob(job_manifest, DIGITS, report=lambda _: None) as job:
        watch = asyncio.create_task(show_progress(story, name))
        if faults:
            await inflict(story, job)
        outcome = await job.wait()
        watch.cancel()
    if not result.exists():
        sys.exit(f"demo: the run {name} ended as {outcome} and wrote no result")
    return story, json.loads(result.read_text())


async def inflict(story: Story, job: LocalJob) -> None:
    """Kill, join and drain, one after the other, each when the one before has settled."""
    await story.until(lambda: len(story.members) == 6)
    await story.until_round(40)
    event = story.begin("kill")
    os.kill(story.pid_of_slot(KILLED_SLOT), signal.SIGKILL)
    await story.until(lambda: story.reformed(event) and story.joined_since(event, KILLED_SLOT))
    await story.until_round(story.round + 40)
    event = story.begin("join")
    job.scale(7)
    await story.until(lambda: story.joined_since(event, 6))
    await story.until_round(story.round + 40)
    event = story.begin("drain")
    job.signal(DRAINED_SLOT, signal.SIGTERM)
    await story.until(lambda: story.left_since(event, DRAINED_SLOT))


async def show_progress(story: Story, name: str) -> None:
    """Say once a second where the run is."""
    while True:
        await asyncio.sleep(1)
        await story.look()
        print(f"{name}: round {story.round}, {len(story.members)} members", flush=True)


def main() -> None:
    """Run both jobs, print the table, write ``build/demo.json``."""
    started = time.monotonic()
    BUILD.mkdir(parents=True, exist_ok=True)
    story, result = asyncio.run(train("digits", "grid", faults=True))
    _, baseline = asyncio.run(train("digits-allreduce", "allreduce", faults=False))
    report = {
        "events": [event.report(story) for event in story.events],
        "survivors_restarted": story.survivors_restarted(),
        "samples_seen_once": story.every_batch_once(),
        "accuracy": result["accuracy"],
        "accuracy_allreduce": baseline["accuracy"],
        "seconds": round(time.monotonic() - started, 1),
    }
    Path("build/demo.json").write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)


if __name__ == "__main__":
    main()
