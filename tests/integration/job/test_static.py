"""A static rendezvous whose host is lost and comes back."""

import signal
import socket

import pytest

from integration.job.harness import Job, matching

pytestmark = pytest.mark.timeout(120)


def test_a_job_goes_on_where_it_was_when_its_host_comes_back(job: Job) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = ["--nnodes", "1:2", "--rdzv-endpoint", f"127.0.0.1:{port}", "--nproc-per-node", "1"]
    host = job.run(*flags, "--slot", "0", samples=200)
    other = job.run(*flags, "--slot", "1", samples=200)
    job.board.wait(matching(event="round", slot=1), 10)

    with job.board.hold(matching(event="step", slot=1)) as held:
        held()
        host.signal(signal.SIGKILL)
        host.end()
        back = job.run(*flags, "--slot", "0", samples=200)
        job.board.wait(back.says("coordinating"))

    assert [other.end(), back.end()] == [0, 0]
    assert "adopted=1" in back.text
    assert "restarted_job" not in back.text
    assert "committed=200 total=200" in back.text
    assert other.text.count("dssync linked") == 2
