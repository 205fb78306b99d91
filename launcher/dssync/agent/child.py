"""Signals to child processes of an event loop."""

import asyncio
import contextlib
import os


def signal_child(process: asyncio.subprocess.Process, number: int) -> None:
    """Send a signal; nothing happens if the process has ended.

    Not by the process object: it looks for an end first, and then the event loop finds no child
    any more and takes the exit code for 255.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
