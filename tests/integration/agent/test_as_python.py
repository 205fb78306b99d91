"""A worker is what ``python script.py`` would be: same output, same exit code."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from dssync.agent.settings import Command, LogSettings, Stream
from integration.agent.crew import hear

BOTH: frozenset[Stream] = frozenset({"stdout", "stderr"})

SCRIPTS = {
    "names": """
        import sys, __main__
        print(sys.argv, __name__, __file__, __package__, __spec__, __cached__, __doc__)
        print(type(__loader__).__name__, vars(__main__) is globals(), sorted(globals()))
        print(sys.path)
    """,
    "module level annotations and docstring": '''
        """Says what it is."""
        x: int = 1
        print(__doc__, __annotations__)
    ''',
    "uncaught exception": """
        def inner():
            return 1 / 0
        try:
            inner()
        except ZeroDivisionError as error:
            raise ValueError("outer") from error
    """,
    "syntax error": "x = = 1",
    "missing import": "import nothing_of_this_name",
    "exit code": "import sys; sys.exit(3)",
    "exit message": "import sys; sys.exit('bye')",
    "exit without code": "import sys; print('out'); sys.exit()",
    "immediate exit": "import os; print('out', flush=True); os._exit(7)",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "own excepthook": """
        import sys
        sys.excepthook = lambda kind, error, where: print("hook", kind, error, where.tb_lineno)
        raise ValueError("mine")
    """,
    "end of life": """
        import atexit, threading
        class Last:
            def __del__(self): print("deleted")
        last = Last()
        def late():
            threading.main_thread().join()
            print("thread")
        threading.Thread(target=late).start()
        atexit.register(print, "exit handler")
        print("main", end="")
    """,
    "signals as at birth": """
        for line in open("/proc/self/status"):
            if line.startswith(("SigBlk", "SigIgn", "SigCgt")):
                print(line, end="")
    """,
    "death by signal": "import os, signal; os.kill(os.getpid(), signal.SIGUSR1)",
    "processes of its own": """
        import multiprocessing
        def double(x): return 2 * x
        if __name__ == "__main__":
            for method in ("fork", "spawn"):
                with multiprocessing.get_context(method).Pool(1) as pool:
                    print(pool.map(double, [1, 2]))
    """,
    "pickle by name": """
        import pickle
        class Point: pass
        print(type(pickle.loads(pickle.dumps(Point()))) is Point)
    """,
    "no input": "print(input())",
}


@dataclass
class Outcome:
    returncode: int
    stdout: str
    stderr: str


def dedent(text: str) -> str:
    lines = text.split("\n")
    return "\n".join(line.removeprefix("        ") for line in lines)


def plain(arguments: list[str], environment: dict[str, str]) -> Outcome:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


async def as_worker(hire: Callable, command: Command, root: Path, **more: dict) -> Outcome:
    logs = LogSettings(root / "logs", redirected={0: BOTH})
    crew = hire(command=command, logs=logs, **more)
    exit_ = await crew.run()
    where = root / "logs" / "none_0" / "attempt_0" / "0"
    texts = [(where / f"{name}.log").read_text() for name in ("stdout", "stderr")]
    return Outcome(exit_.returncode, *texts)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_a_script_runs_as_under_python(
    script: str, hire: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(dedent(script))

    outcome = await as_worker(hire, Command("script", "./train.py", ("-x", "1")), tmp_path)

    assert outcome == plain(["./train.py", "-x", "1"], {})


@pytest.mark.parametrize("name", ["package.module", "package", "package.missing", "single"])
async def test_a_module_runs_as_under_python_m(name: str, hire: Callable, tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    text = "import sys; print(sys.argv, __name__, __package__, __spec__.name, __file__)\n"
    for file in ("package/__init__.py", "package/module.py", "package/__main__.py", "single.py"):
        (tmp_path / file).write_text("" if file.endswith("init__.py") else text)
    environment = {"PYTHONPATH": str(tmp_path)}

    command = Command("module", name, ("-x",))
    outcome = await as_worker(hire, command, tmp_path, environment=environment)

    assert outcome == plain(["-m", name, "-x"], environment)


async def test_only_the_link_and_the_report_are_open_besides_the_standard_streams(
    hire: Callable,
) -> None:
    crew = hire("import time; say(sorted(os.listdir('/proc/self/fd'), key=int)); link.recv(1)")
    workers = [await crew.start(rank) for rank in range(2)]

    counts = [len(eval(await hear(worker))) for worker in workers]

    assert counts == [6, 6]  # three streams, link, report, and the listing itself
    for worker in workers:
        worker.link.close()


async def test_programs_that_a_worker_starts_do_not_inherit_the_link(hire: Callable) -> None:
    crew = hire("say(os.get_inheritable(link.fileno()))")
    worker = await crew.start()

    assert await hear(worker) == "False"
    worker.link.close()
