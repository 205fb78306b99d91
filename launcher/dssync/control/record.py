"""The arbiter's record as the launchers read it. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import asdict

from dssync import contract
from dssync.control.takeover import Launcher

MOST_LAUNCHERS: Final = 400
"""Launchers listed in the record, lowest slots first: it has to stay small beside the operator's
entries. In a larger job a newcomer asks these."""
MOST_MISSING: Final = 50
"""The same of those that are missing; one that is listed is enough to make a coordinator look."""


@dataclass(frozen=True)
class Record:
    """What an arbiter holds.

    Attributes:
        version: Opaque; differs between any two states of the cell. Empty before the first swap.
        holder: Incarnation of the coordinator's launcher; empty when nobody is coordinator.
        term: Number of the coordinatorship.
        values: Entries under the ``RECORD_*`` keys of ``dssync.contract``.
    """

    version: str = ""
    holder: str = ""
    term: int = 0
    values: Mapping[str, str] = field(default_factory=dict)

    @property
    def launchers(self) -> tuple[Launcher, ...]:
        """The launchers of the last view that was written."""
        return _launchers(self.values.get(contract.RECORD_LAUNCHERS, ""))

    @property
    def missing(self) -> tuple[Launcher, ...]:
        """The launchers that were missing from it."""
        return _launchers(self.values.get(contract.RECORD_MISSING, ""))

    @property
    def gone(self) -> frozenset[str]:
        """Uids of pods that have ended for certain."""
        return frozenset(map(str, _list(self.values.get(contract.RECORD_GONE, ""))))

    @property
    def paths(self) -> Mapping[str, str]:
        """Where nodes stand: name to path, such as ``zone-a/rack-7``."""
        found = contract.value_of(self.values.get(contract.RECORD_NODES, ""))
        return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    @property
    def challenged(self) -> bool:
        """Whether somebody waits for the coordinator to show that it lives."""
        return contract.RECORD_CHALLENGE in self.values

    @property
    def completed(self) -> bool:
        """Whether the job is done."""
        return contract.RECORD_COMPLETED in self.values


def launchers_value(launchers: tuple[Launcher, ...]) -> str:
    """Return launchers as they stand in the record."""
    return _packed(launchers[:MOST_LAUNCHERS])


def missing_value(launchers: tuple[Launcher, ...]) -> str:
    """Return launchers that are missing as they stand in the record."""
    return _packed(launchers[:MOST_MISSING])


def _packed(launchers: tuple[Launcher, ...]) -> str:
    return contract.pack(json.dumps(launchers, separators=(",", ":"), default=asdict))


def _launchers(entry: str) -> tuple[Launcher, ...]:
    found = (_launcher(each) for each in _list(entry))
    return tuple(each for each in found if each is not None)


def _list(entry: str) -> list[object]:
    found = contract.value_of(entry)
    return found if isinstance(found, list) else []


def _launcher(value: object) -> Launcher | None:
    match value:
        case {
            "slot": int(slot),
            "uid": str(uid),
            "address": str(address),
            "process": str(process),
        }:
            return Launcher(slot, uid, address, process)
    return None
