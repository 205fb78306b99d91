"""How a launcher ends workers that cannot be heard, or that are left at its own end."""

import os
from pathlib import Path

import pytest

from integration.job.harness import Job

pytestmark = pytest.mark.timeout(300)

BREAKER = """
import os, signal
os.write(int(os.environ["DSSYNC_LINK_FD"]), b"\\xff" * 8)
signal.pause()
"""
SLOW = """
import os, signal, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
if os.environ["LOCAL_RANK"] == "1":
    open(sys.argv[1]).close()  # a pipe: waits for the other worker
    sys.exit(3)

open(sys.argv[1], "w").close()
signal.sigwait({signal.SIGTERM})
time.sleep(2.0)
print("finished in time", flush=True)
os._exit(0)
"""


def script(folder: Path, text: str) -> Path:
    path = folder / "script.py"
    path.write_text(text)
    return path


def test_a_worker_that_breaks_the_protocol_of_its_link_is_ended(job: Job, tmp_path: Path) -> None:
    pod = job.run("--standalone", script=script(tmp_path, BREAKER))

    assert pod.end() == 128 + 9

    assert "dssync broken member=0.0." in pod.text
    assert "frame_of_4294967295_bytes" in pod.text
    assert "worker 0 ended with -9" in pod.text


def test_workers_that_are_left_have_the_shutdown_timeout_to_end(job: Job, tmp_path: Path) -> None:
    flags = ("--standalone", "--nproc-per-node", "2", "--shutdown-timeout", "60")
    ready = tmp_path / "ready"
    os.mkfifo(ready)
    text = SLOW.replace("sys.argv[1]", repr(str(ready)))

    pod = job.run(*flags, script=script(tmp_path, text))

    assert pod.end() == 3
    assert "worker 1 ended with 3" in pod.text
    assert "finished in time" in pod.text
