"""Tasks without which a launcher is none: whose failure is not to go unseen."""

import asyncio
from collections.abc import Callable


def watch(task: asyncio.Task[None], on_failed: Callable[[str], None]) -> None:
    """Say why a task has failed, once it has; its traceback goes to the log."""

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            context = {"message": "a launcher's task failed", "exception": error, "task": task}
            task.get_loop().call_exception_handler(context)
            on_failed(f"the launcher failed: {error!r}")

    task.add_done_callback(ended)
