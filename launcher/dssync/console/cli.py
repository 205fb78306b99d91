"""The commands for people, from arguments to text or JSON."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from msgspec.structs import asdict

from dssync.console.client import ask
from dssync.console.find import Target, target
from dssync.console.show import status_text
from dssync.contract import EXIT_DONE
from dssync.control import requests as r
from dssync.errors import RequestError, UsageError

COMMANDS: Final = {
    "status": "show launchers, members, view and progress",
    "top": "show the same, again every second",
    "drain": "let the launcher of a slot finish its rounds and leave",
    "kick": "end one worker at once; its launcher starts it again if it may",
    "scale": "want another number of launchers",
    "log": "show what has happened to the membership",
}
REFRESH_SECONDS: Final = 1.0
_CLEAR: Final = "\x1b[H\x1b[2J"


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}")


def main(command: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command, with the variables of a pod if there are any.

    Raises:
        UsageError: an argument is wrong.
        RequestError: nobody answers, or the request is refused.
    """
    given = _parser(command).parse_args(argv)
    where = target(given.at, given.token_file, environ)
    try:
        if command == "top":
            return _top(where)
        if command == "log":
            return _log(where, given.follow, given.output == "json")
        answer = asyncio.run(ask(where, _request(command, given)))
    except KeyboardInterrupt:
        return EXIT_DONE
    print(_text(answer, given.output == "json"))
    return EXIT_DONE


def _parser(command: str) -> argparse.ArgumentParser:
    parser = _Parser(f"dssync {command}", description=COMMANDS[command], allow_abbrev=False)
    if command == "drain":
        parser.add_argument("slot", type=_count, help="slot of the launcher")
    if command == "kick":
        parser.add_argument("member", help="SLOT.RANK, or the member's key")
    if command == "scale":
        parser.add_argument("desired", type=_count, help="number of launchers wanted")
    if command == "log":
        parser.add_argument("--follow", "-f", action="store_true", help="go on until interrupted")
    if command != "top":
        parser.add_argument("--output", "-o", choices=("text", "json"), default="text")
    parser.add_argument(
        "--at", metavar="HOST:PORT|FOLDER", help="any launcher of the job, or a local run's folder"
    )
    parser.add_argument("--token-file", metavar="FILE", help="file with the job's secret")
    return parser


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} was given, expected a whole number from 0")
    return int(text)


def _request(command: str, given: argparse.Namespace) -> r.Request:
    if command == "drain":
        return r.AskDrain(given.slot)
    if command == "kick":
        return r.AskKick(given.member)
    if command == "scale":
        return r.AskScale(given.desired)
    return r.AskStatus()


def _text(answer: r.Answer, as_json: bool) -> str:
    if as_json:
        return json.dumps(answer, default=asdict)
    if isinstance(answer, r.Status):
        return status_text(answer)
    if isinstance(answer, r.Accepted):
        return answer.what
    raise RequestError(f"the launcher gave an answer to something else: {answer}")


def _top(where: Target) -> int:
    while True:
        text = _text(asyncio.run(ask(where, r.AskStatus())), as_json=False)
        sys.stdout.write(_CLEAR + text + "\n")
        sys.stdout.flush()
        time.sleep(REFRESH_SECONDS)


def _log(where: Target, follow: bool, as_json: bool) -> int:
    start = 0
    while True:
        answer = asyncio.run(ask(where, r.AskLog(start)))
        if not isinstance(answer, r.Lines):
            raise RequestError(f"the launcher gave an answer to something else: {answer}")
        for line in answer.lines:
            print(json.dumps(_fields(line)) if as_json else line, flush=True)
        if not follow:
            return EXIT_DONE
        start = answer.next
        time.sleep(REFRESH_SECONDS)


def _fields(line: str) -> dict[str, str]:
    """Return the words of a log line: ``dssync EVENT key=value …``."""
    _, event, *words = line.split()
    pairs = (word.partition("=") for word in words if "=" in word)
    return {"event": event, **{key: value for key, _, value in pairs}}
