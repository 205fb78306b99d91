"""Becomes the command of a local pod, tied to the life of the process that started it.

A step between fork and exec, in a process of its own, because Python code between the two in the
parent is unsafe once the parent has threads.
"""

import os
import signal
import sys
from typing import Final

from dssync.agent.prctl import die_with_parent

CANNOT_RUN: Final = 127
"""Exit code of a pod whose command cannot be run, as of a shell."""


def main(parent_pid: int, command: list[str]) -> None:
    """Replace this process by the command; end with a container runtime's code if that fails."""
    die_with_parent(signal.SIGKILL, parent_pid)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and exec would pass that on
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"dssync: cannot run {command[0]!r}: {error.strerror}", file=sys.stderr)
        sys.exit(CANNOT_RUN)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
