"""The ``dssync`` command: run a pod, run a job on this machine, or ask a job that runs."""

import asyncio
import os
import sys
from collections.abc import Sequence

from dssync import contract
from dssync.errors import DssyncError, UsageError

COMMANDS = ("status", "top", "drain", "kick", "scale", "log")
USAGE = """usage: dssync run [flags] script.py [arguments]
       dssync local job.yaml [flags]
       dssync status | top | drain SLOT | kick SLOT.RANK | scale N | log [flags]

Use --help after a command for its flags."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code; bad input costs one sentence."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except UsageError as error:
        print(f"dssync: {error}", file=sys.stderr)
        return contract.EXIT_USAGE
    except DssyncError as error:
        print(f"dssync: {error}", file=sys.stderr)
        return contract.EXIT_FAILED


def _dispatch(arguments: list[str]) -> int:
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if command == "run":
        from dssync.agent.main import run
        from dssync.flags import parse

        return asyncio.run(run(parse(rest, _environ())))
    if command == "local":
        from dssync.local.cli import main as local

        return local(rest)
    if command in COMMANDS:
        from dssync.console.cli import main as console

        return console(command, rest, _environ())
    if command in ("-h", "--help"):
        print(USAGE)
        return 0
    raise UsageError(
        f"unknown command {command!r}: expected run, local or {', '.join(COMMANDS)}\n{USAGE}"
    )


def _environ() -> dict[str, str]:
    try:
        return contract.spread(os.environ)
    except ValueError as error:
        raise UsageError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
