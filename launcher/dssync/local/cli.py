"""``dssync local job.yaml``: a DSSyncJob manifest on this machine."""

import argparse
import asyncio
import signal
from functools import partial
from pathlib import Path

from dssync.contract import EXIT_DONE, EXIT_FAILED
from dssync.local.manifest import Manifest, load
from dssync.local.run import LocalJob
from dssync.local.state import Result


def main(args: list[str]) -> int:
    """Run a manifest to its end.

    The first SIGINT or SIGTERM drains all pods, the second kills them.

    Args:
        args: Arguments after ``dssync local``.

    Returns:
        0 if the job is complete, 1 if it is not.

    Raises:
        ManifestError: The manifest is wrong.
    """
    parser = argparse.ArgumentParser("dssync local", description=__doc__)
    parser.add_argument("manifest", type=Path, help="a DSSyncJob; its folder is the pods' own")
    path: Path = parser.parse_args(args).manifest
    return asyncio.run(_run(load(path), path.absolute().parent))


async def _run(manifest: Manifest, folder: Path) -> int:
    for notice in manifest.notices:
        _say(f"{manifest.name}: {notice}")
    async with LocalJob(manifest, folder, _say) as job:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, partial(_halt, job, number))
        outcome = await job.wait()
    return EXIT_DONE if outcome.result is Result.COMPLETE else EXIT_FAILED


def _halt(job: LocalJob, number: signal.Signals) -> None:
    job.stop(f"{number.name} was received")
    for each in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(each, job.kill)


def _say(text: str) -> None:
    print(text, flush=True)
