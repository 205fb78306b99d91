"""The fork-server: imports torch once, then forks workers that start in milliseconds.

A child of the launcher, started as ``python -m dssync.agent.forkserver LAUNCHER_PID FD
[MODULE ...]``. It runs one thread, never touches an accelerator and never runs a line of the
user's code, so it may fork. Each fork returns from ``serve`` all the way to the module level and
runs the user's script there: the interpreter then ends a worker as it ends any program.

Who dies when: the launcher's end is seen as end-of-file on the channel, with ``PR_SET_PDEATHSIG``
behind it. That signal is one that can be caught, so that the processes which workers started
(data loaders) are killed too; each worker leads a process group for this purpose. Workers
themselves ask for SIGKILL when the fork-server dies. All other signals stay blocked here: what
is sent to everybody (Ctrl-C, a service manager's SIGTERM) is the launcher's to answer.
"""

import contextlib
import gc
import importlib
import io
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Sequence
from typing import Final, NoReturn

from dssync.agent import channel, workermain
from dssync.agent.prctl import adopt_orphans, die_with_parent

_LAUNCHER_DIED: Final = signal.SIGRTMAX
_BLOCKED: Final = signal.valid_signals() - {_LAUNCHER_DIED}


class ForkServer:
    """Forks on request and reports exits, until the launcher closes the channel."""

    def __init__(self, sock: socket.socket, worker_mask: set[int]) -> None:
        """Take over the channel.

        Args:
            sock: Blocking end of the socket pair to the launcher.
            worker_mask: Signal mask for workers: the one this process was started with.
        """
        self._sock = sock
        self._worker_mask = worker_mask
        self._receiver = channel.Receiver(sock)
        self._pidfds: dict[int, int] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(sock, selectors.EVENT_READ)
        self._pid = os.getpid()

    def serve(self) -> workermain.Work:
        """Answer requests. Returns in forked workers only, with what they shall run."""
        signal.signal(_LAUNCHER_DIED, lambda *_: self._end())
        self._send(channel.Ready())
        while True:
            for key, _ in self._selector.select():
                if key.fileobj is not self._sock:
                    self._report_exit(key.data)
                    continue
                work = self._answer()
                if work is not None:
                    return work

    def _answer(self) -> workermain.Work | None:
        try:
            messages = self._receiver.receive()
        except (EOFError, ConnectionResetError):
            self._end()
        for message, descriptors in messages:
            # The launcher sends nothing else; what it might is not for a fork.
            if isinstance(message, channel.Start) and self._fork() == 0:
                return workermain.Work(message, *descriptors)
            channel.close_all(descriptors)
        return None

    def _fork(self) -> int:
        try:
            pid = os.fork()
        except OSError as error:
            self._send(channel.Failed(str(error)))
            return -1
        if pid == 0:
            self._leave_to_worker()
        else:
            self._watch(pid)
        return pid

    def _watch(self, pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        self._pidfds[pid] = pidfd
        self._selector.register(pidfd, selectors.EVENT_READ, pid)
        self._send(channel.Started(pid), [pidfd])

    def _leave_to_worker(self) -> None:
        die_with_parent(signal.SIGKILL, self._pid)
        os.setpgid(0, 0)
        self._selector.close()
        self._sock.close()
        channel.close_all(list(self._pidfds.values()))
        signal.signal(_LAUNCHER_DIED, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._worker_mask)

    def _report_exit(self, pid: int) -> None:
        at_seconds = time.monotonic()
        # Before the leader is reaped: until then its id cannot name another process group.
        self._kill_group(pid)
        _, status = os.waitpid(pid, 0)
        pidfd = self._pidfds.pop(pid)
        self._selector.unregister(pidfd)
        os.close(pidfd)
        returncode = os.waitstatus_to_exitcode(status)
        self._send(channel.Exited(pid, returncode, at_seconds))
        self._reap_orphans()

    def _reap_orphans(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while info := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if info.si_pid in self._pidfds:
                    return  # a worker: the selector brings it next
                os.waitpid(info.si_pid, 0)

    def _send(self, message: channel.Message, descriptors: Sequence[int] = ()) -> None:
        try:
            channel.send(self._sock, message, descriptors)
        except ConnectionError:
            self._end()

    def _end(self) -> NoReturn:
        for pid in self._pidfds:
            self._kill_group(pid)
        os._exit(0)

    @staticmethod
    def _kill_group(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


def _import_if_installed(names: Sequence[str]) -> None:
    for name in names:
        # Also where a module is there and torch, which it needs, is not.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(name)


def main() -> None:
    """Serve as fork-server; in each forked worker, run the user's command."""
    launcher_pid, descriptor, *modules = sys.argv[1:]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)
    die_with_parent(_LAUNCHER_DIED, int(launcher_pid))
    adopt_orphans()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Unbuffered below (-u) and whole lines from here: a killed worker loses none of them,
            # and those of siblings do not mix.
            stream.reconfigure(line_buffering=True, write_through=False)
    _import_if_installed(modules)
    gc.collect()
    gc.freeze()  # a collection in a worker then leaves the shared pages alone
    workermain.run(ForkServer(socket.socket(fileno=int(descriptor)), mask).serve())


if __name__ == "__main__":
    main()
