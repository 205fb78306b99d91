"""The command line's grammar: names of flags, and where the script's own arguments begin."""

import argparse
from collections.abc import Mapping, Sequence
from typing import NoReturn

from dssync.errors import UsageError
from dssync.flags.table import FLAGS, REFUSED, SWITCHES


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("the following arguments are required"):
            message = "there is no script to run: give a Python file after the flags"
        raise UsageError(f"dssync run: {message}")


class _Refuse(argparse.Action):
    """Stands for a flag that is known and not offered."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> NoReturn:
        raise refusal(f"--{self.dest.replace('_', '-')}", self.dest)


def refusal(where: str, name: str) -> UsageError:
    """Return the error for a known flag that is not offered, given as ``where``."""
    return UsageError(f"{where} is not supported: {REFUSED[name.replace('_', '-')]}")


def read(argv: Sequence[str], environ: Mapping[str, str]) -> argparse.Namespace:
    """Split a command line into flags, script and the script's arguments.

    Raises:
        UsageError: A flag is unknown, refused or lacks its value, or there is no script.
    """
    for name in REFUSED:
        variable = pet_variable(name)
        if environ.get(variable):
            raise refusal(variable, name)
    return _build(environ).parse_args(argv)


def pet_variable(name: str) -> str:
    """Return torchrun's variable for a flag."""
    return f"PET_{name.replace('-', '_').upper()}"


def _build(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dssync run",
        description="Run a training script on the workers of one launcher.",
        allow_abbrev=False,
    )
    for flag in FLAGS:
        names = (*_spellings(flag.name), *flag.aliases)
        text = flag.help + (f" (default {flag.default})" if flag.default else "")
        parser.add_argument(*names, metavar=flag.metavar, help=text)
    for name, text in SWITCHES.items():
        names = (*_spellings(name), *(("-m",) if name == "module" else ()))
        default = environ.get(pet_variable(name), "0") not in ("", "0")
        parser.add_argument(*names, action="store_true", default=default, help=text)
    for name in REFUSED:
        parser.add_argument(
            *_spellings(name), action=_Refuse, nargs="?", dest=name, help=argparse.SUPPRESS
        )
    parser.add_argument("script", help="file, module or program that each worker runs")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, default=[], help="its arguments")
    return parser


def _spellings(name: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((f"--{name}", f"--{name.replace('-', '_')}")))
