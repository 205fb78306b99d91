"""Invariants of what one coordinator answers to what members ask for; see ``asks``."""

from __future__ import annotations

from collections.abc import Container, Mapping

from dssync.control import messages as m
from dssync.control.coordinator import Coordinator
from dssync.control.job import World
from dssync.control.ledger import committed_in
from dssync.control.takeover import Report
from simulation.assignments import mates
from simulation.violation import require


class Answers:
    """What members of one term have asked for."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._layouts: dict[str, str] = {}
        """What of its optimizer's state each member can average."""
        self._stopped: World | None = None
        """The world in which somebody has asked for an early end."""
        self._copies: list[m.LedgerCopy] = []
        """For checkpoints, and not looked at yet."""

    def said(self, key: str, body: m.FromMemberBody) -> None:
        """A member speaks; called before the coordinator hears it."""
        match body:
            case m.Enter():
                self._layouts[key] = ""
            case m.Moments(layout):
                self._layouts[key] = layout
            case m.AskStop():
                heard = self._coordinator.gathering is None
                if heard and key in self._coordinator.roster.peers:
                    self._stopped = self._coordinator.world

    def adopted(self, reports: Mapping[str, Report], adopted: Container[str]) -> None:
        """A term begins with what members report."""
        reported = {key: report.moments for key, report in reports.items()}
        self._layouts = reported | self._layouts
        if any(report.stop_asked for key, report in reports.items() if key in adopted):
            self._stopped = self._coordinator.world

    def assigned(self, key: str, assign: m.Assign) -> None:
        """A member is assigned something, in an event that the coordinator has handled."""
        stops = self._stopped is not None and self._stopped is self._coordinator.world
        if stops and assign.kind == "train" and not assign.attempt:
            require(False, f"round {assign.round} is frozen for training after a stop")
        if assign.moments:
            lacking = [k for k in mates(key, assign) if self._layouts.get(k) != assign.moments]
            require(not lacking, f"{key} averages {assign.moments}, which {lacking} lack")

    def copied(self, copy: m.LedgerCopy) -> None:
        """A member gets the ledger for a checkpoint."""
        self._copies.append(copy)

    def check_copies(self, committed: Container[int]) -> None:
        """Nothing is saved as done that is not committed."""
        copies, self._copies = self._copies, []
        for copy in copies:
            done = range(self._coordinator.ledger.total)
            early = [b for b in done if committed_in(copy.ledger, b) and b not in committed]
            require(not early, f"a checkpoint of round {copy.round} has {early} for committed")
