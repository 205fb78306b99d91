"""Starting, watching, signalling and ending real workers."""

import asyncio
import os
import select
import signal
import time
from pathlib import Path

import pytest

from dssync.agent.forkclient import ForkServerLostError
from dssync.agent.restart import Action
from dssync.agent.settings import Command
from integration.agent.conftest import Hire
from integration.agent.crew import hear, tell

WAIT_FOREVER = "say('ready'); link.recv(1)"


def ended(pid: int, within_seconds: float) -> bool:
    """Whether a process, ours or not, is over in time."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], within_seconds)[0])
    finally:
        os.close(pidfd)


def parent_of(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


async def test_the_link_joins_launcher_and_worker(hire: Hire) -> None:
    crew = hire("say('hello'); say(link.recv(9).decode().upper())")
    worker = await crew.start()

    assert await hear(worker) == "hello"
    await tell(worker, "shout")

    assert await hear(worker) == "SHOUT"
    worker.link.close()


async def test_an_exit_tells_code_time_and_traceback(hire: Hire) -> None:
    crew = hire("raise ValueError('too warm')")
    before = time.monotonic()

    exit_ = await crew.run(local_rank=2)

    assert exit_.worker.spec.local_rank == 2
    assert exit_.returncode == 1
    assert before < exit_.at_seconds < time.monotonic()
    assert exit_.error.startswith("Traceback (most recent call last):")
    assert exit_.error.endswith("ValueError: too warm\n")


async def test_a_killed_worker_is_reported_and_its_siblings_live_on(hire: Hire) -> None:
    crew = hire("say('ready'); say('still here ' + link.recv(9).decode())", max_restarts=1)
    victim, sibling = await crew.start(0), await crew.start(1)
    assert (await hear(victim), await hear(sibling)) == ("ready", "ready")

    victim.signal(signal.SIGKILL)
    exit_ = await crew.exits.get()

    assert (exit_.worker, exit_.returncode) == (victim, -signal.SIGKILL)
    assert exit_.action is Action.RESTART
    await tell(sibling, "too")
    assert await hear(sibling) == "still here too"
    victim.link.close()
    sibling.link.close()


@pytest.mark.parametrize(("code", "action"), [(7, Action.RESTART), (8, Action.GIVE_UP)])
async def test_only_exits_with_a_named_code_ask_for_a_restart(
    hire: Hire, code: int, action: Action
) -> None:
    crew = hire(f"sys.exit({code})", max_restarts=1, restart_codes=frozenset({7}))

    worker = await crew.start(0)
    exit_ = await crew.exits.get()

    assert (exit_.returncode, exit_.action) == (code, action)
    worker.link.close()


async def test_a_worker_started_again_knows_how_often(hire: Hire) -> None:
    crew = hire("say(os.environ['TORCHELASTIC_RESTART_COUNT']); sys.exit(5)", max_restarts=1)
    heard, actions = [], []
    spec = None

    while spec is None or actions[-1] is Action.RESTART:
        worker = await crew.start(*((0,) if spec is None else (0, spec.again().restarts)))
        exit_ = await crew.exits.get()
        heard.append(await hear(worker))
        actions.append(exit_.action)
        spec = exit_.worker.spec
        worker.link.close()

    assert heard == ["0", "1"]
    assert actions == [Action.RESTART, Action.GIVE_UP]


async def test_a_signal_sent_right_after_the_start_is_not_lost(hire: Hire) -> None:
    crew = hire(WAIT_FOREVER)

    worker = await crew.start()
    worker.signal(signal.SIGTERM)

    assert (await crew.exits.get()).returncode == -signal.SIGTERM
    worker.link.close()


async def test_stop_asks_first_and_kills_who_does_not_listen(hire: Hire) -> None:
    deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN) if os.environ['RANK'] == '1' else 0\n"
    crew = hire(deaf + WAIT_FOREVER)
    workers = [await crew.start(rank) for rank in range(2)]
    assert [await hear(worker) for worker in workers] == ["ready", "ready"]

    await crew.stop(0.2)

    exits = [crew.exits.get_nowait() for _ in workers]
    assert [exit_.returncode for exit_ in exits] == [-signal.SIGTERM, -signal.SIGKILL]
    for worker in workers:
        worker.link.close()


async def test_workers_die_with_the_fork_server_and_the_next_start_makes_another(
    hire: Hire,
) -> None:
    crew = hire(WAIT_FOREVER)
    workers = [await crew.start(rank) for rank in range(2)]
    assert [await hear(worker) for worker in workers] == ["ready", "ready"]

    os.kill(parent_of(workers[0].pid), signal.SIGKILL)
    exits = [await crew.exits.get() for _ in workers]

    assert {exit_.worker for exit_ in exits} == set(workers)
    assert all(ended(worker.pid, 1.0) for worker in workers)
    successor = await crew.start()
    assert await hear(successor) == "ready"
    for worker in (*workers, successor):
        worker.link.close()


async def test_what_a_worker_started_ends_with_it(hire: Hire) -> None:
    crew = hire("pid = os.fork()\nif pid == 0: signal.pause()\nsay(pid); link.recv(1)")
    worker = await crew.start()
    grandchild = int(await hear(worker))

    worker.signal(signal.SIGKILL)
    await crew.exits.get()

    assert ended(grandchild, 1.0)
    worker.link.close()


async def test_a_fork_server_that_cannot_import_fails_the_start(hire: Hire, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('no driver')")
    crew = hire(environment={"PYTHONPATH": str(tmp_path)}, preload=("broken",))

    with pytest.raises(ForkServerLostError):
        await crew.start()


async def opened(pipe: int) -> None:
    """Wait until somebody has opened the other end of a named pipe, and close this one."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pipe, heard.set)
    await heard.wait()
    loop.remove_reader(pipe)
    os.close(pipe)


async def test_stop_does_not_wait_for_imports(hire: Hire, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "importing")
    importing = os.open(tmp_path / "importing", os.O_RDONLY | os.O_NONBLOCK)
    (tmp_path / "slow.py").write_text(
        f"import signal; open({str(tmp_path / 'importing')!r}, 'w').close(); signal.pause()"
    )
    crew = hire(environment={"PYTHONPATH": str(tmp_path)}, preload=("slow",))
    starting = asyncio.ensure_future(crew.start())
    await opened(importing)

    await crew.stop()

    with pytest.raises(ForkServerLostError):
        await starting
    with pytest.raises(ForkServerLostError):
        await crew.start()


async def test_modules_that_are_not_installed_are_not_preloaded(hire: Hire) -> None:
    crew = hire(preload=("nothing_of_this_name",))

    assert (await crew.run()).returncode == 0


@pytest.mark.timeout(180)  # imports torch, whose time is the disk's
async def test_random_numbers_differ_between_workers(hire: Hire) -> None:
    crew = hire(
        "import random, numpy, torch\n"
        "say((random.random(), numpy.random.rand(), torch.rand(1).item()))",
        preload=("random", "numpy.random", "torch"),
    )
    workers = [await crew.start(rank) for rank in range(2)]

    drawn = [eval(await hear(worker)) for worker in workers]

    assert len({*drawn[0], *drawn[1]}) == 6
    for worker in workers:
        worker.link.close()


async def test_a_program_that_is_not_python_gets_the_same(hire: Hire) -> None:
    script = 'printf "%s %s" "$LOCAL_RANK" "$1" >&$DSSYNC_LINK_FD; exit 4'
    crew = hire(command=Command("program", "sh", ("-c", script, "sh", "extra")))
    worker = await crew.start(3)

    assert await hear(worker) == "3 extra"
    assert (await crew.exits.get()).returncode == 4
    worker.link.close()


async def test_a_program_ignores_no_signal_that_only_python_does(hire: Hire) -> None:
    script = "grep SigIgn /proc/self/status >&$DSSYNC_LINK_FD"
    crew = hire(command=Command("program", "sh", ("-c", script)))
    worker = await crew.start()

    ignored = int((await hear(worker)).split()[1], 16)

    for each in (signal.SIGPIPE, signal.SIGXFSZ):
        assert not ignored & 1 << (each - 1), each.name
    await crew.exits.get()
    worker.link.close()


async def test_a_program_that_does_not_exist_is_named(hire: Hire) -> None:
    crew = hire(command=Command("program", "/no/such/program"))

    exit_ = await crew.run()

    assert exit_.returncode == 1
    assert "cannot execute '/no/such/program': No such file or directory" in exit_.error


async def test_starts_and_exits_leave_no_descriptor_behind(hire: Hire) -> None:
    crew = hire("")
    await crew.run()
    before = os.listdir("/proc/self/fd")

    for _ in range(20):
        await crew.run()

    assert len(os.listdir("/proc/self/fd")) == len(before)


async def test_a_cancelled_start_does_not_disturb_the_next(hire: Hire) -> None:
    crew = hire("say(os.environ['LOCAL_RANK']); link.recv(1)")
    (await crew.start(2)).link.close()
    await crew.exits.get()
    first = asyncio.ensure_future(crew.start(0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # the request is out, the reply is not in
    assert not crew.supervisor.workers
    first.cancel()

    second = await crew.start(1)

    assert await hear(second) == "1"
    for worker in crew.supervisor.workers:
        worker.link.close()


async def test_an_exit_is_never_heard_of_before_its_start_returned(hire: Hire) -> None:
    crew = hire("os._exit(0)")

    for _ in range(20):
        worker = await crew.start()
        assert crew.exits.empty()
        assert (await crew.exits.get()).worker is worker
        worker.link.close()
