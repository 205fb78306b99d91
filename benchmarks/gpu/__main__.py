"""``make bench-gpu``: communicators and a 100 M parameter transformer, four workers on one GPU.

Not seen to run: there has been no GPU yet. Each part stands alone, so that one that fails leaves
the figures of the others.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

import torch

from benchmarks.publish import machine, publish, versions
from benchmarks.results import Figure, Report, at_most, figure
from dssync.flags.machine import gpu_count
from integration.communicator.ranks import Nccl, communicator, running

ROOT: Final = Path(__file__).parents[2]
COMMAND: Final = "make bench-gpu"
GROUPS: Final = 10
SUMS: Final = 50
FLOATS: Final = 4 << 20


def communicators(folder: Path) -> list[Figure]:
    """Measure building, the memory of one more group, and an all-reduce of 16 MB."""
    builds, sums, sizes = [], [], []
    with running(2, folder, Nccl()) as ranks:
        for number in range(GROUPS):
            name = f"group-{number}"
            before = ranks[0].call("device_bytes")
            started = time.perf_counter()
            ranks.call(range(2), "build", communicator(name, range(2)))
            builds.append(time.perf_counter() - started)
            ranks.allreduce(range(2), name)
            sizes.append((ranks[0].call("device_bytes") - before) / 2 / 2**20)
        for _ in range(SUMS):
            started = time.perf_counter()
            ranks.allreduce(range(2), "group-0", FLOATS)
            sums.append(time.perf_counter() - started)
    case = "group of 2 on one GPU"
    return [
        figure(case, "nccl", "first build", "s", builds[:1]),
        figure(case, "nccl", "build", "s", builds[1:]),
        figure(case, "nccl", "memory per member", "MiB", sizes[1:]),
        figure(case, "nccl", "all-reduce of 16 MiB, commands included", "s", sums),
    ]


def transformer(backend: str, folder: Path) -> tuple[list[Figure], list[float]]:
    """Train with 4 workers, one of which dies; return figures and the re-form times."""
    command = [sys.executable, "-m", "dssync.cli", "run", "--standalone", "--interface", "lo"]
    flags = ["--nproc-per-node", "4", "--group-size", "2", "--max-restarts", "1"]
    script = [str(Path(__file__).with_name("train.py")), str(folder)]
    path = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    run = subprocess.run(
        [*command, *flags, "--backend", backend, *script],
        stderr=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    found = [json.loads(each.read_text()) for each in sorted(folder.glob("*.json"))]
    rounds = [r["seconds"] for each in found for r in each["rounds"] if r["result"] == "committed"]
    reforms = [float(s) for s in re.findall(r"dssync reform .*?\bseconds=([0-9.]+)", run.stderr)]
    case = f"transformer, {found[0]['parameters'] / 1e6:.0f} M parameters, bf16, 4 workers"
    return [
        figure(case, backend, "round", "s", rounds),
        figure(case, backend, "start to first batch", "s", [e["joined_seconds"] for e in found]),
        figure(case, backend, "re-formed after SIGKILL", "s", reforms),
        figure(case, backend, "loss at the end", "nats", [each["loss"] for each in found]),
    ], reforms


def main() -> None:
    """Run, print the table, write build/bench/gpu.json and docs/benchmarks.md."""
    if not gpu_count(os.environ):
        print("bench-gpu: skipped, there is no NVIDIA GPU here")
        return
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name, each) for each in ("groups", "gloo", "nccl")]
        for folder in folders:
            folder.mkdir()
        figures = communicators(folders[0])
        gloo, gloo_reforms = transformer("gloo", folders[1])
        nccl, nccl_reforms = transformer("nccl", folders[2])
    gpu = {"gpu": torch.cuda.get_device_name(0), "driver": driver()}
    collectives = ".".join(map(str, torch.cuda.nccl.version()))
    publish(
        Report(
            name="gpu",
            command=COMMAND,
            machine={**machine(), **gpu},
            versions={**versions("torch"), "nccl": collectives},
            figures=[*figures, *gloo, *nccl],
            bars=[
                at_most("reformed_over_gloo", max(gloo_reforms), 0.5, "s"),
                at_most("reformed_over_nccl", max(nccl_reforms), 2.0, "s"),
            ],
        )
    )


def driver() -> str:
    """Return the version of NVIDIA's driver."""
    text = Path("/proc/driver/nvidia/version").read_text()
    found = re.search(r"Kernel Module\s+(?:for \S+\s+)?([0-9.]+)", text)
    return found[1] if found else "unknown"


if __name__ == "__main__":
    main()
