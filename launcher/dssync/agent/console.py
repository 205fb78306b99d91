"""Answers what people ask a launcher; who does not coordinate names the one who does."""

import json
from dataclasses import dataclass, replace

from dssync import contract
from dssync.agent.arbiters import Arbiter
from dssync.agent.host import CoordinatorHost
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.control import messages as m, requests as r
from dssync.control.election import Election
from dssync.errors import ArbiterError


@dataclass
class Console:
    """One launcher's answers.

    Args:
        settings: what the launcher was told.
        reporter: keeps the log.
        arbiter: where the record is; None for a launcher that is alone.
        host: the coordinator, while it runs here.
        election: knows the coordinator that this launcher is linked to, once it has begun.
    """

    settings: Settings
    reporter: Reporter
    arbiter: Arbiter | None
    host: CoordinatorHost | None = None
    election: Election | None = None

    async def respond(self, request: r.Request) -> r.Answer:
        """Answer one request."""
        try:
            if self.host is None:
                return await self._elsewhere()
            return await self._decide(request, self.host)
        except ArbiterError as error:
            return r.Refused(str(error))

    async def _decide(self, request: r.Request, host: CoordinatorHost) -> r.Answer:
        match request:
            case r.AskStatus():
                return host.status(self.settings.job.name or self.settings.job.run_id)
            case r.AskDrain(slot):
                return self._drain(host, slot)
            case r.AskKick(member):
                return self._kick(host, member)
            case r.AskScale(desired):
                return await self._scale(desired)
            case r.AskLog(start):
                return r.Lines(*self.reporter.lines_from(start))

    async def _elsewhere(self) -> r.Answer:
        address = self._linked_to or await self._recorded()
        if not address:
            return r.Refused("nobody coordinates this job now: ask again in a moment")
        return r.Elsewhere(address)

    @property
    def _linked_to(self) -> str:
        """The coordinator's address as long as this launcher is linked to it; else nothing."""
        leader = None if self.election is None else self.election.answer.leader
        return "" if leader is None else leader.address

    async def _recorded(self) -> str:
        record = None if self.arbiter is None else await self.arbiter.read()
        return "" if record is None else record.values.get(contract.RECORD_ADDRESS, "")

    def _drain(self, host: CoordinatorHost, slot: int) -> r.Answer:
        slots = host.slots
        if slot not in slots:
            return r.Refused(f"slot {slot} holds no launcher: expected one of {slots}")
        host.tell(slot, m.PleaseDrain())
        return r.Accepted(f"the launcher of slot {slot} finishes its rounds and leaves")

    def _kick(self, host: CoordinatorHost, member: str) -> r.Answer:
        found = [key for key in host.members if key == member or key.startswith(f"{member}.")]
        if len(found) != 1:
            known = ", ".join(sorted({key.rpartition(".")[0] for key in host.members})) or "nobody"
            return r.Refused(f"member {member!r} is not in this job: expected one of {known}")
        host.tell(int(found[0].partition(".")[0]), m.Evicted(found[0], "kick"))
        return r.Accepted(f"member {found[0]} is ended; its launcher starts it again if it may")

    async def _scale(self, desired: int) -> r.Answer:
        job = self.settings.job
        if self.settings.control.arbiter == "lease":
            return r.Refused(
                f"a job on a cluster is scaled by its object: kubectl -n {job.namespace} scale "
                f"{contract.PLURAL} {job.name} --replicas={desired}"
            )
        if self.arbiter is None:
            return r.Refused(
                "a launcher that is alone cannot be scaled: start the job with 'local'"
            )
        while True:
            record = await self.arbiter.read()
            low, high = (
                int(record.values.get(key, default))
                for key, default in (
                    (contract.RECORD_MIN, self.settings.world.min),
                    (contract.RECORD_MAX, self.settings.world.max),
                )
            )
            if not low <= desired <= high:
                return r.Refused(f"{desired} launchers were asked for: expected {low} to {high}")
            values = {**record.values, contract.RECORD_DESIRED: json.dumps(desired)}
            if await self.arbiter.swap(record, replace(record, values=values)) is not None:
                return r.Accepted(f"{desired} launchers are wanted")
