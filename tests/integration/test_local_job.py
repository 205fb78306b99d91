"""``dssync local`` with real processes; small scripts stand in the place of ``dssync run``.

A script introduces itself to the test over a datagram socket and obeys signals: SIGTERM drains,
SIGUSR1 fails, SIGUSR2 says that the job is done.
"""

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from dssync import contract
from dssync.errors import UsageError
from dssync.local import manifest
from dssync.local.plan import PodSpec
from dssync.local.processes import Pod
from dssync.local.run import LocalJob
from dssync.local.state import Outcome, Result

SCRIPT = """
import json, os, signal, socket, sys, time

def end(code, verdict):
    with open(os.environ["DSSYNC_TERMINATION_LOG"], "w") as log:
        json.dump({"verdict": verdict, "reason": "told so"}, log)
    os._exit(code)

# Waited for below: a handler's signal that comes just before a pause is not seen in the pause.
OBEYED = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}
signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)
if os.fork() == 0:  # a grandchild that no launcher looks after
    os.setsid()
    while True:
        signal.pause()
folder = os.path.dirname(os.environ["DSSYNC_TOKEN_FILE"])
records = os.path.join(folder, "arbiter")
latest = max(int(name) for name in os.listdir(records) if name.isdigit())
record = json.load(open(os.path.join(records, str(latest))))["values"]
hello = {"slot": int(os.environ["DSSYNC_SLOT"]), "uid": os.environ["DSSYNC_POD_UID"],
         "pid": os.getpid(), "folder": folder, "gone": record.get("dssync.io/gone", "[]"),
         "desired": record["dssync.io/desired"]}
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(json.dumps(hello).encode(), "hellos")
told = signal.sigwait(OBEYED)
while told == signal.SIGTERM and "stubborn" in sys.argv:
    told = signal.sigwait(OBEYED)
if told == signal.SIGUSR1:
    os._exit(1)
end(0, "Done" if told == signal.SIGUSR2 else "Drained")
"""
JOB = """
apiVersion: dssync.io/v1alpha1
kind: DSSyncJob
metadata: {name: demo}
spec:
  replicas: 2
  elastic: {minReplicas: 1, maxReplicas: 4}
  failurePolicy: {backoffLimit: 1}
  template:
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: worker, command: [python, script.py]}]
"""
Hello = dict[str, Any]
NextHellos = Callable[[int], Awaitable[list[Hello]]]


@pytest_asyncio.fixture
async def hellos(tmp_path: Path) -> AsyncIterator[NextHellos]:
    """A folder with the script, and what its pods say: the next so many, by slot."""
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "job.yaml").write_text(JOB)
    said = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    said.bind(str(tmp_path / "hellos"))
    said.setblocking(False)

    async def following(count: int) -> list[Hello]:
        loop = asyncio.get_running_loop()
        found = [json.loads(await loop.sock_recv(said, 65536)) for _ in range(count)]
        return sorted(found, key=lambda hello: int(hello["slot"]))

    yield following
    said.close()


async def test_a_pod_that_is_told_to_go_as_it_ends_keeps_its_exit_code(tmp_path: Path) -> None:
    spec = PodSpec(0, "uid", ("sh", "-c", "exit 7"), os.environ, tmp_path, tmp_path / "log")
    codes = set()
    for _ in range(10):
        pod = await Pod.start(spec)
        with suppress(ChildProcessError):
            # The loop is not to hear of its end before this.
            os.waitid(os.P_PID, pod.pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        pod.signal(signal.SIGTERM)
        codes.add((await pod.ended()).returncode)

    assert codes == {7}


@pytest_asyncio.fixture
async def command(tmp_path: Path, hellos: NextHellos) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command line on that job; it ends with its test."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "dssync.cli", "local", str(tmp_path / "job.yaml"))
    )
    yield process
    if process.returncode is None:
        process.kill()
    await process.wait()


def job_in(folder: Path, text: str = JOB) -> LocalJob:
    return LocalJob(manifest.parse(text, "job.yaml"), folder, report=lambda _: None)


def left_of(hello: Hello) -> list[str]:
    """The run folder and the processes that worked with it, as far as they still exist."""
    folders = [hello["folder"]] if os.path.exists(hello["folder"]) else []
    return folders + [pid for pid in os.listdir("/proc") if carries(pid, hello["folder"])]


def carries(pid: str, folder: str) -> bool:
    try:
        return pid.isdecimal() and folder in Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return False


def first_child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


async def ended(pid: int) -> None:
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(pid)
    loop.add_reader(descriptor, gone.set)
    await gone.wait()
    loop.remove_reader(descriptor)
    os.close(descriptor)


async def test_pods_find_record_and_token_in_a_private_folder(
    tmp_path: Path, hellos: NextHellos
) -> None:
    async with job_in(tmp_path) as job:
        pods = await hellos(2)

        folder = pods[0]["folder"]
        record = await job.arbiter.read()
        assert [pod["slot"] for pod in pods] == [0, 1]
        assert job.pids == {pod["slot"]: pod["pid"] for pod in pods}
        assert os.stat(folder).st_mode & 0o777 == 0o700
        assert os.stat(f"{folder}/token").st_mode & 0o777 == 0o600
        assert [record.values[key] for key in (contract.RECORD_MIN, contract.RECORD_MAX)] == [
            *("1", "4")
        ]


async def test_a_killed_pod_is_replaced_after_its_uid_was_confirmed_gone(
    tmp_path: Path, hellos: NextHellos
) -> None:
    async with job_in(tmp_path) as job:
        pods = await hellos(2)

        job.signal(1, signal.SIGKILL)

        (fresh,) = await hellos(1)
        assert fresh["slot"] == 1
        assert fresh["uid"] != pods[1]["uid"]
        assert json.loads(fresh["gone"]) == [pods[1]["uid"]]


async def test_scaling_up_and_down_moves_the_highest_slots(
    tmp_path: Path, hellos: NextHellos
) -> None:
    async with job_in(tmp_path) as job:
        await hellos(2)
        job.scale(4)
        added = await hellos(2)
        assert [(pod["slot"], pod["desired"]) for pod in added] == [(2, "4"), (3, "4")]

        gone = asyncio.create_task(ended(added[1]["pid"]))
        await asyncio.sleep(0)
        job.scale(3)
        await gone

        with pytest.raises(UsageError, match="cannot be scaled to 5 pods; expected 1 to 4"):
            job.scale(5)


async def test_one_done_pod_completes_the_job_and_nothing_is_left(
    tmp_path: Path, hellos: NextHellos
) -> None:
    completed = asyncio.Event()

    def note(line: str) -> None:
        if "Complete" in line:
            completed.set()

    any_ = JOB.replace("spec:\n  replicas", "spec:\n  successPolicy: Any\n  replicas")
    async with LocalJob(manifest.parse(any_, "job.yaml"), tmp_path, note) as job:
        pods = await hellos(2)

        job.signal(0, signal.SIGUSR2)
        await completed.wait()
        job.signal(1, signal.SIGUSR1)

        assert await job.wait() == Outcome(Result.COMPLETE, "pod 0 is done")
    assert left_of(pods[0]) == []


async def test_too_many_failures_end_the_job(tmp_path: Path, hellos: NextHellos) -> None:
    async with job_in(tmp_path) as job:
        await hellos(2)
        job.signal(0, signal.SIGUSR1)
        await hellos(1)
        job.signal(0, signal.SIGUSR1)

        outcome = await job.wait()

    assert outcome.result is Result.FAILED
    assert "exceed failurePolicy.backoffLimit 1" in outcome.reason


async def test_a_drain_ends_even_pods_that_ignore_it(tmp_path: Path, hellos: NextHellos) -> None:
    async with job_in(tmp_path, JOB.replace("script.py", "script.py, stubborn")) as job:
        await hellos(2)

        job.stop("asked")

        assert await job.wait() == Outcome(Result.DRAINED, "asked")


async def test_leaving_the_block_early_leaves_nothing(tmp_path: Path, hellos: NextHellos) -> None:
    async with job_in(tmp_path, JOB.replace("script.py", "script.py, stubborn")):
        pods = await hellos(2)

    assert left_of(pods[0]) == []


async def test_a_command_that_cannot_run_fails_the_job_at_once(
    tmp_path: Path, hellos: NextHellos
) -> None:
    async with job_in(tmp_path, JOB.replace("python", "no-such-program")) as job:
        outcome = await job.wait()

    assert outcome.result is Result.FAILED
    assert outcome.reason.endswith("ended (code 127)")


async def test_the_deadline_of_the_job_ends_it(tmp_path: Path, hellos: NextHellos) -> None:
    text = JOB.replace("replicas: 2", "replicas: 2\n  activeDeadlineSeconds: 1")
    async with job_in(tmp_path, text) as job:
        outcome = await job.wait()

    assert outcome == Outcome(Result.FAILED, "the job ran longer than activeDeadlineSeconds 1")


async def test_the_command_is_killed_and_takes_everything_with_it(
    command: asyncio.subprocess.Process, hellos: NextHellos
) -> None:
    pods = await hellos(2)
    cleaned = asyncio.create_task(ended(first_child(command.pid)))
    await asyncio.sleep(0)

    command.kill()

    await cleaned
    assert left_of(pods[0]) == []


async def test_launchers_die_with_the_command_even_without_its_janitor(
    command: asyncio.subprocess.Process, hellos: NextHellos
) -> None:
    pods = await hellos(2)
    ends = [asyncio.create_task(ended(pod["pid"])) for pod in pods]
    await asyncio.sleep(0)
    os.kill(first_child(command.pid), signal.SIGKILL)

    command.kill()

    await asyncio.gather(*ends)
    for pid in left_of(pods[0])[1:]:
        os.kill(int(pid), signal.SIGKILL)
    shutil.rmtree(pods[0]["folder"])


async def test_the_command_drains_on_the_first_signal(
    command: asyncio.subprocess.Process, hellos: NextHellos
) -> None:
    pods = await hellos(2)

    command.send_signal(signal.SIGINT)

    assert await command.wait() == contract.EXIT_FAILED
    assert left_of(pods[0]) == []


async def test_the_command_ends_with_zero_when_the_job_is_complete(
    command: asyncio.subprocess.Process, hellos: NextHellos
) -> None:
    for pod in await hellos(2):
        os.kill(pod["pid"], signal.SIGUSR2)

    assert await command.wait() == contract.EXIT_DONE


async def test_what_is_written_into_the_record_scales_the_job(
    tmp_path: Path, hellos: NextHellos
) -> None:
    async with job_in(tmp_path) as job:
        await hellos(2)

        record = await job.arbiter.read()
        values = {**record.values, contract.RECORD_DESIRED: "3"}
        assert await job.arbiter.swap(record, replace(record, values=values))

        assert [hello["slot"] for hello in await hellos(1)] == [2]
        assert (await job.arbiter.read()).values[contract.RECORD_DESIRED] == "3"


async def test_a_world_that_waits_below_its_minimum_for_too_long_ends_the_job(
    tmp_path: Path, hellos: NextHellos
) -> None:
    text = JOB.replace("minReplicas: 1,", "minReplicas: 2, belowMinTimeoutSeconds: 1,")
    async with job_in(tmp_path, text.replace("backoffLimit: 1", "backoffLimit: 5")) as job:
        first, _ = await hellos(2)
        record = await job.arbiter.read()
        values = {**record.values, contract.RECORD_VIEW: "{}"}
        assert await job.arbiter.swap(record, replace(record, values=values))
        os.kill(first["pid"], signal.SIGUSR1)
        (again,) = await hellos(1)
        os.kill(again["pid"], signal.SIGUSR1)  # and now it waits for ten seconds

        outcome = await job.wait()

    assert outcome.result is Result.FAILED
    assert "belowMinTimeoutSeconds 1" in outcome.reason
