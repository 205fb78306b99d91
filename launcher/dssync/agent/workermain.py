"""What a freshly forked worker does: become the process that ``python script.py`` would be.

Threads, exit handlers, streams and exit codes end as the interpreter would end them.
``runpy`` is not used: it puts frames into tracebacks and restores ``__main__`` afterwards,
under the feet of threads and exit handlers.
"""

import atexit
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from dssync.agent.channel import Start
from dssync.contract import ENV_LINK_FD, EXIT_USAGE
from dssync.errors import ModelError, ReplayError, UsageError

_REPORT_BYTES: Final = 1 << 14
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)
"""What the interpreter turned off for itself; any other program is to start with the defaults."""
_SENTENCES: Final = (UsageError, ModelError, ReplayError)
"""Errors that tell the user what to do; where they were raised tells nothing."""
at_end: list[Callable[[], None]] = []
"""Called where a script comes to its end without an error; what they raise is how it ended."""


@dataclass(frozen=True)
class Work:
    """A worker's orders: its command and the descriptors that came with it."""

    start: Start
    link: int
    report: int
    stdin: int
    stdout: int
    stderr: int


def run(work: Work) -> NoReturn:
    """Run the command as the main program, and end the process as the interpreter would.

    What is left out is the interpreter's last act, taking every module apart: in a fork that
    copies each page that it touches, which for torch takes seconds when eight workers do it.
    """
    _take_over_streams(work)
    _take_over_environment(work)
    error: BaseException | None = None
    try:
        if work.start.kind == "program":
            _execute(work)
        _run_as_main(work.start)
    except BaseException as raised:
        error = raised
        _show(raised, work.report)
    # As ``multiprocessing`` does for its forks: non-daemon threads end before exit handlers run.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    vars(sys.modules["__main__"]).clear()  # the last words of the script's own objects
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if isinstance(error, KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(_exit_code(error))


def _exit_code(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        return EXIT_USAGE if isinstance(error, _SENTENCES) else 1
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _run_as_main(start: Start) -> None:
    _reseed()
    sys.path[:0] = _first_path(start)
    code, main_module = _load(start)
    sys.modules["__main__"] = main_module
    try:
        exec(code, main_module.__dict__)
    except SystemExit as ended:
        if _exit_code(ended):
            raise
    for check in at_end:
        check()


def _take_over_streams(work: Work) -> None:
    for number, descriptor in enumerate((work.stdin, work.stdout, work.stderr)):
        os.dup2(descriptor, number)
        os.close(descriptor)


def _take_over_environment(work: Work) -> None:
    os.environ.clear()
    os.environ.update(work.start.environment)
    os.environ[ENV_LINK_FD] = str(work.link)


def _execute(work: Work) -> None:
    os.set_inheritable(work.link, True)
    command = [work.start.target, *work.start.arguments]
    for each in _IGNORED_BY_PYTHON:
        signal.signal(each, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"dssync: cannot execute {command[0]!r}: {error.strerror}")


def _reseed() -> None:
    """Undo what siblings would share: numpy and torch seed their generators when imported.

    ``random`` reseeds itself after a fork, and accelerators' generators do not exist yet.
    """
    if "numpy.random" in sys.modules:
        sys.modules["numpy.random"].seed()
    if "torch" in sys.modules:
        sys.modules["torch"].default_generator.seed()


def _first_path(start: Start) -> list[str]:
    if "PYTHONSAFEPATH" in start.environment:
        return []
    if start.kind == "module":
        return [os.getcwd()]
    return [os.path.dirname(os.path.realpath(start.target))]


def _load(start: Start) -> tuple[types.CodeType, types.ModuleType]:
    main_module = types.ModuleType("__main__")
    main_module.__annotations__ = {}
    if start.kind == "module":
        code, path = _load_module(start.target, main_module)
    else:
        path = start.target
        code = _load_script(path, main_module)
    sys.argv[:] = [path, *start.arguments]
    return code, main_module


def _load_script(target: str, main_module: types.ModuleType) -> types.CodeType:
    path = os.path.join(os.getcwd(), target)
    with io.open_code(path) as file:
        source = file.read()
    main_module.__file__ = path
    main_module.__dict__["__cached__"] = None
    main_module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    return compile(source, path, "exec", dont_inherit=True)


def _load_module(name: str, main_module: types.ModuleType) -> tuple[types.CodeType, str]:
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{name}.__main__")
    loader = spec and spec.loader
    if spec is None or spec.origin is None or not isinstance(loader, importlib.abc.InspectLoader):
        sys.exit(f"{sys.executable}: No module named {name}")
    code = loader.get_code(spec.name)
    if code is None:
        sys.exit(f"{sys.executable}: No code object available for {name}")
    main_module.__file__ = spec.origin
    main_module.__dict__["__cached__"] = spec.cached
    main_module.__loader__ = loader
    main_module.__package__ = spec.parent
    main_module.__spec__ = spec
    return code, spec.origin


def _show(error: BaseException, report: int) -> None:
    """Print what the interpreter would, and leave a copy for the launcher.

    Tracebacks start in the user's code; bad input to dssync costs one sentence.
    """
    if isinstance(error, SystemExit):
        text = "" if error.code is None or isinstance(error.code, int) else f"{error.code}\n"
        sys.stderr.write(text)
    elif isinstance(error, _SENTENCES):
        text = f"dssync: {error}\n"
        sys.stderr.write(text)
    else:
        users = error.__traceback__
        while users is not None and users.tb_frame.f_code.co_filename == __file__:
            users = users.tb_next
        text = "".join(traceback.format_exception(error.with_traceback(users)))
        sys.excepthook(type(error), error, users)
    os.write(report, text.encode(errors="backslashreplace")[-_REPORT_BYTES:])
