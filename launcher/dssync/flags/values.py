"""Reads one value at a time: flag first, then variable, then default; each checked.

An error names the flag or the variable that the value came from, the value and what was
expected, in one sentence.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from dssync.errors import UsageError
from dssync.flags.parser import pet_variable
from dssync.flags.table import FLAGS, Flag

Choice = TypeVar("Choice", bound=str)
_BY_NAME = {flag.name: flag for flag in FLAGS}


@dataclass(frozen=True)
class Origin:
    """A value as it was written, and where."""

    text: str
    where: str

    def refuse(self, expected: str) -> NoReturn:
        """Raise the error that says what was expected instead.

        Raises:
            UsageError: Always.
        """
        raise UsageError(f"{self.where}: {self.text!r} was given, expected {expected}")


class Values:
    """The given flags and variables."""

    def __init__(self, namespace: argparse.Namespace, environ: Mapping[str, str]) -> None:
        self._given = {
            name.replace("_", "-"): value
            for name, value in vars(namespace).items()
            if isinstance(value, str)
        }
        self._environ = environ

    def origin(self, name: str) -> Origin | None:
        """Return what was said about a flag, or None if nothing was."""
        if name in self._given:
            return Origin(self._given[name], f"--{name}")
        for variable in _variables(_BY_NAME[name]):
            if self._environ.get(variable):
                return Origin(self._environ[variable], variable)
        return None

    def variable(self, name: str) -> Origin | None:
        """Return a variable for which there is no flag, or None if it is unset or empty."""
        text = self._environ.get(name)
        return Origin(text, name) if text else None

    def text(self, name: str) -> str:
        """Return a value unchecked; empty if there is none."""
        return self._say(name).text

    def integer(self, name: str, minimum: int) -> int:
        """Return a whole number of at least ``minimum``."""
        return integer(self._say(name), minimum)

    def seconds(self, name: str, zero_too: bool = False) -> float:
        """Return a duration; variables that end in ``_MILLISECONDS`` are converted."""
        return seconds(self._say(name), zero_too)

    def choice(self, name: str, options: tuple[Choice, ...]) -> Choice:
        """Return one of ``options``."""
        said = self._say(name)
        for option in options:
            if said.text == option:
                return option
        said.refuse(f"one of {', '.join(options)}")

    def port(self, name: str) -> int | None:
        """Return a port, 0 included, or None if nothing was said."""
        said = self.origin(name)
        return None if said is None else port(said)

    def file(self, name: str) -> Path | None:
        """Return a file that exists, or None if nothing was said."""
        said = self.origin(name)
        if said is None:
            return None
        if not Path(said.text).is_file():
            said.refuse("a file that exists")
        return Path(said.text)

    def _say(self, name: str) -> Origin:
        return self.origin(name) or Origin(_BY_NAME[name].default, f"--{name}")


def integer(said: Origin, minimum: int) -> int:
    """Return a whole number of at least ``minimum``."""
    try:
        number = int(said.text)
    except ValueError:
        number = minimum - 1
    if number < minimum:
        said.refuse(f"a whole number of at least {minimum}")
    return number


def seconds(said: Origin, zero_too: bool = False) -> float:
    """Return a duration in seconds, above 0 unless none at all has a meaning."""
    try:
        number = float(said.text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf or (number == 0 and not zero_too):
        said.refuse(f"a duration {'of at least' if zero_too else 'above'} 0")
    return number / 1000 if said.where.endswith("_MILLISECONDS") else number


def port(said: Origin) -> int:
    """Return a port number; 0 lets the system choose."""
    number = int(said.text) if said.text.isascii() and said.text.isdigit() else -1
    if not 0 <= number <= 65535:
        said.refuse("a port from 0 to 65535")
    return number


def endpoint(said: Origin, default_port: int) -> tuple[str, int]:
    """Split ``HOST``, ``HOST:PORT``, ``[IPV6]`` or ``[IPV6]:PORT``."""
    text = said.text
    if "," in text:
        said.refuse("a host's name or address; one name may stand for several addresses")
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        colon, number = rest[:1], rest[1:]
        well_formed = bool(closed) and (colon == ":" or not rest)
    else:
        host, colon, number = text.partition(":")
        well_formed = ":" not in number
    if not host or not well_formed or (colon and not number):
        said.refuse("HOST:PORT, with an IPv6 address in brackets")
    if not _may_be_looked_up(host):
        Origin(host, said.where).refuse("a host's name, of parts of 1 to 63 characters")
    return host, port(Origin(number, said.where)) if number else default_port


def _may_be_looked_up(host: str) -> bool:
    try:
        host.encode("idna")  # as the resolver's call does, with an error that is no OSError
    except UnicodeError:
        return False
    return True


def _variables(flag: Flag) -> tuple[str, ...]:
    return tuple(filter(None, (flag.variable, pet_variable(flag.name))))
