"""Bad input costs one clear sentence and a non-zero exit, and nothing is left running."""

import math
import socket
from pathlib import Path

import pytest

from integration.job.harness import Job, matching

pytestmark = pytest.mark.timeout(240)

HEAD = """
import torch, dssync, os
from torch.utils.data import DataLoader
rank = int(os.environ["LOCAL_RANK"])
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
dataset = range(40)
"""
LOOP = """
sync = dssync.GroupSync(model, optimizer)
loader = DataLoader(dataset, batch_sampler=sync.batches(dataset, batch_size=1))
for batch in sync.run(loader):
    optimizer.step()
    sync.step()
"""
ALONE = """
sync = dssync.GroupSync(model, optimizer)
for batch in DataLoader(dataset, batch_size=1):
    optimizer.step()
"""
WRAPPED = """
class DistributedDataParallel(torch.nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module
model = DistributedDataParallel(model)
"""


def test_flags_that_cannot_be_are_refused_before_anything_starts(job: Job) -> None:
    unknown = job.standalone(1, "--no-such-flag")
    lonely = job.standalone(1, "--group-size", "1")

    assert (unknown.end(), lonely.end()) == (2, 2)

    assert "--no-such-flag" in unknown.text
    assert "--group-size" in lonely.text
    for launcher in (unknown, lonely):
        assert launcher.text.count("\n") == 0
        assert launcher.text.startswith("dssync")


def test_a_console_that_cannot_be_written_changes_nothing_else(job: Job) -> None:
    full = ("sh", "-c", 'exec "$@" 2>/dev/full', "sh")
    flags = ("--standalone", "--no-python", "--monitor-interval", "1")

    launcher = job.run(*flags, script="/bin/true", prefix=full)

    assert launcher.end() == 0


def test_a_log_folder_that_cannot_be_made_is_named(job: Job) -> None:
    flags = ("--standalone", "--no-python", "--log-dir", "/proc/none", "--tee", "3")

    launcher = job.run(*flags, script="/bin/true")

    assert launcher.end() == 1
    assert "exit_code=1 " in launcher.text
    *_, sentence = launcher.text.splitlines()
    assert sentence.startswith("dssync: worker 0 could not be started: ")
    assert "/proc/none" in sentence


def test_a_view_log_that_cannot_be_opened_is_named(job: Job) -> None:
    launcher = job.standalone(1, "--view-log", "/proc/none/views")

    assert launcher.end() == 2
    (sentence,) = launcher.text.splitlines()
    assert sentence.startswith("dssync: --view-log /proc/none/views cannot be opened: ")


def test_a_port_in_use_is_named(job: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        metrics = job.standalone(1, "--metrics-port", port)
        control = job.run("--nnodes", "2", "--rdzv-endpoint", f"127.0.0.1:{port}")
        assert (metrics.end(), control.end()) == (2, 2)

    for launcher in (metrics, control):
        assert port in launcher.text
        assert "in use" in launcher.text
        assert "Traceback" not in launcher.text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        pytest.param(
            "model = torch.nn.Linear(3, 2 + rank)" + LOOP,
            ["weight", "(2, 3)", "(3, 3)", "build the same model"],
            id="shapes differ",
        ),
        pytest.param(
            "model = model.to(torch.float64) if rank else model" + LOOP,
            ["weight", "float32", "float64"],
            id="types differ",
        ),
        pytest.param(
            "model = torch.nn.Sequential(model) if rank else model" + LOOP,
            ["'weight", "'0.weight"],
            id="names differ",
        ),
        pytest.param(WRAPPED + LOOP, ["DistributedDataParallel", "bare module"], id="wrapped"),
        pytest.param(
            LOOP.replace("    sync.step()", "    pass"), ["sync.step()", "never"], id="no step"
        ),
        pytest.param(
            "dataset = range(400)"
            + LOOP.replace("optimizer.step()", "model.weight.data.fill_(float('nan'))"),
            ["NaN", "learning rate"],
            id="NaN for ever",
        ),
        pytest.param(
            "dssync.GroupSync(model, optimizer)" + LOOP,
            ["one GroupSync", "ModuleDict"],
            id="a second GroupSync",
        ),
        pytest.param(ALONE, ["took no part", "sync.run"], id="a loop of its own"),
        pytest.param(
            ALONE + "import sys; sys.exit(0)", ["took no part"], id="a loop of its own, and an exit"
        ),
    ],
)
def test_a_script_that_cannot_work_ends_with_a_sentence(
    job: Job, tmp_path: Path, body: str, words: list[str]
) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + body)

    launcher = job.standalone(2, script=script)

    assert launcher.end() != 0
    sentences = [line for line in launcher.text.splitlines() if line.startswith("dssync: ")]
    assert any(all(word in line for word in words) for line in sentences), launcher.text
    assert "Traceback" not in launcher.text


def test_a_script_that_ends_itself_before_it_trains_keeps_its_code(
    job: Job, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + "dssync.GroupSync(model, optimizer)\nraise SystemExit(3)")

    launcher = job.standalone(1, script=script)

    assert launcher.end() == 3
    assert "took no part" not in launcher.text


def test_a_script_that_raises_shows_its_traceback_in_log_and_summary(
    job: Job, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(HEAD + LOOP.replace("optimizer.step()", "raise RuntimeError('no data')"))
    logs = tmp_path / "logs"

    launcher = job.standalone(1, "--log-dir", str(logs), "--redirects", "3", script=script)

    assert launcher.end() == 1
    (log,) = logs.rglob("stderr.log")
    for text in (log.read_text(), launcher.text):
        assert "raise RuntimeError('no data')" in text
        assert str(script) in text
    assert "worker 0 ended with 1" in launcher.text


def test_spoiled_values_are_replaced_by_a_mates(job: Job) -> None:
    launcher = job.standalone(4, samples=400, spoil=[2, 20], sync={"group_size": 2})

    assert launcher.end() == 0

    lines = job.board.rounds()
    assert job.board.select(matching(event="load", rank=2))[-1]["steps"] >= 19
    assert not any(math.isnan(value) for line in lines for value in line["values"]["w32"])
    assert {line["life"] for line in lines} == {0}
    assert len({str(line["bits"]) for line in job.board.select(matching(event="over"))}) == 1
