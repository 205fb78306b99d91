"""Where the output of real workers ends up."""

import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from dssync.agent.settings import LogSettings, Stream
from integration.agent.conftest import Hire
from integration.agent.crew import Crew, hear

OUT: frozenset[Stream] = frozenset({"stdout"})
ERR: frozenset[Stream] = frozenset({"stderr"})
BOTH = OUT | ERR
SPEAK = "print('to out', flush=True); print('to err', file=sys.stderr)"
Streams = Mapping[int, frozenset[Stream]]


def file_of(root: Path, stream: Stream, local_rank: int = 0, restarts: int = 0) -> Path:
    return root / "none_0" / f"attempt_{restarts}" / str(local_rank) / f"{stream}.log"


async def run_to_end(crew: Crew, *local_ranks: int) -> None:
    for local_rank in local_ranks or (0,):
        await crew.run(local_rank)
    await crew.stop()


async def test_output_goes_to_the_launchers_own_streams(
    hire: Hire, capfd: pytest.CaptureFixture[str]
) -> None:
    await run_to_end(hire(SPEAK))

    assert capfd.readouterr() == ("to out\n", "to err\n")


async def test_a_redirected_stream_goes_to_its_file_alone(
    hire: Hire, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = LogSettings(tmp_path / "logs", redirected={0: OUT})

    await run_to_end(hire(SPEAK, logs=logs), 0, 1)

    assert file_of(tmp_path / "logs", "stdout").read_text() == "to out\n"
    assert not file_of(tmp_path / "logs", "stderr").exists()
    assert capfd.readouterr() == ("to out\n", "to err\nto err\n")


async def test_a_teed_stream_goes_to_its_file_and_with_a_prefix_to_the_console(
    hire: Hire, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = "print('one'); print('two', end='')"

    await run_to_end(hire(script, logs=LogSettings(tmp_path, teed={1: OUT})), 1)

    assert file_of(tmp_path, "stdout", 1).read_text() == "one\ntwo"
    assert capfd.readouterr().out == "[default1]:one\n[default1]:two\n"


async def test_the_filter_silences_the_console_and_not_the_files(
    hire: Hire, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logs = LogSettings(tmp_path, teed={0: OUT, 1: OUT}, console_ranks=frozenset({1}))

    await run_to_end(hire(SPEAK, logs=logs), 0, 1)

    assert file_of(tmp_path, "stdout", 0).read_text() == "to out\n"
    assert capfd.readouterr() == ("[default1]:to out\n", "to err\n")


@pytest.mark.parametrize("way", ["redirected", "teed"])
async def test_a_killed_worker_loses_no_line(hire: Hire, tmp_path: Path, way: str) -> None:
    script = "for i in range(5000): print(i)\nos.kill(os.getpid(), signal.SIGKILL)"

    await run_to_end(hire(script, logs=LogSettings(tmp_path, **{way: {0: OUT}})))

    text = file_of(tmp_path, "stdout").read_text()
    assert text.split() == [str(i) for i in range(5000)]


async def test_lines_of_siblings_do_not_mix(hire: Hire, capfd: pytest.CaptureFixture[str]) -> None:
    crew = hire("say('ready'); link.recv(1)\nfor i in range(500): print('x' * 100, 'y' * 100)")
    workers = [await crew.start(rank) for rank in range(4)]

    assert [await hear(worker) for worker in workers] == ["ready"] * 4

    for worker in workers:
        worker.link.close()
    for _ in workers:
        await crew.exits.get()

    assert set(capfd.readouterr().out.splitlines()) == {"x" * 100 + " " + "y" * 100}


async def test_the_end_of_stderr_explains_a_death_without_a_traceback(
    hire: Hire, tmp_path: Path
) -> None:
    script = "print('bad pointer', file=sys.stderr); os.abort()"
    crew = hire(script, logs=LogSettings(tmp_path, teed={0: ERR}))

    exit_ = await crew.run()
    await crew.stop()

    assert exit_.error == "bad pointer\n"


async def test_only_the_owner_may_read_logs(hire: Hire, tmp_path: Path) -> None:
    root = tmp_path / "new" / "logs"

    await run_to_end(hire(SPEAK, logs=LogSettings(root, redirected={0: BOTH})))

    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "new").rglob("*")}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}


async def test_each_attempt_has_its_own_files(hire: Hire, tmp_path: Path) -> None:
    crew = hire(SPEAK, logs=LogSettings(tmp_path, redirected={0: BOTH}))

    for restarts in range(2):
        (await crew.start(0, restarts)).link.close()
        await crew.exits.get()

    assert [file_of(tmp_path, "stdout", 0, n).read_text() for n in range(2)] == ["to out\n"] * 2
