"""A cluster with one job, made up for plans to act upon."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from dssync_operator.job import Job, Manifest, digest, parse_job
from dssync_operator.plan import Plan, Seen, plan
from dssync_operator.pod import Pod
from dssync_operator.policies.template import needs_dry_run, recall
from dssync_operator.record import Record, View, Wanted
from dssync_operator.report import report
from dssync_operator.status import Status, parse_status, render_status
from ground.models import BAD_TEMPLATE, START, TEMPLATE, make_end, make_pod

Effect = Callable[[], None]


class CrashError(Exception):
    """The operator died between two effects."""


@dataclass
class World:
    """A cluster with one job, to which plans are applied effect by effect.

    ``look`` does what ``reconcile`` does, in its order, and may die after any effect.

    Attributes:
        wanted: The operator's part of the Lease; None where there is no Lease.
        kept: The template that the Service keeps.
        failures: Pods that ended in a way that may count as a failure: nobody had asked them to.
        confirmed_late: Uids of pods that were replaced before the Lease called them gone.
        made_of: Hash of the template of each pod that was ever made.
    """

    spec: dict[str, Any] = field(default_factory=dict)
    now: float = START
    status: dict[str, Any] = field(default_factory=dict)
    pods: dict[str, Pod] = field(default_factory=dict)
    wanted: Wanted | None = None
    view: View | None = None
    completed: bool = False
    launchers: tuple[str, ...] = ()
    kept: Manifest | None = None
    generation: int = 1
    deleted: bool = False
    created: int = 0
    failures: int = 0
    confirmed_late: list[str] = field(default_factory=list)
    made_of: set[str] = field(default_factory=set)

    def job(self) -> Job:
        """The job as it would be read now."""
        return parse_job(
            {
                "metadata": {
                    "namespace": "ns",
                    "name": "demo",
                    "uid": "job-uid",
                    "generation": self.generation,
                },
                "spec": {"template": TEMPLATE, **self.spec},
                "status": self.status,
            }
        )

    def edit(self, **spec: Any) -> None:
        """Change the spec."""
        self.spec.update(spec)
        self.generation += 1

    def live(self) -> list[Pod]:
        """Pods that hold a slot."""
        return [pod for pod in self.pods.values() if pod.live]

    def record(self) -> Record | None:
        """The Lease as it would be read now."""
        if self.wanted is None:
            return None
        return Record(self.wanted, "", 0, self.view, None, self.completed, self.launchers)

    def look(self, effects_before_crash: int | None = None) -> Plan:
        """Observe, plan and act; die after so many effects.

        Raises:
            CrashError: The effects are used up.
        """
        job, record = self.job(), self.record()
        before = recall(parse_status(job.status), self.pods.values())
        kept = self.kept if digest(self.kept) == before.template_hash else None
        checks = needs_dry_run(job, before, kept, self.pods.values())
        refused = "no image" if checks and job.spec.template == BAD_TEMPLATE else None
        pods = tuple(self.pods.values())
        decided = plan(Seen(job, pods, record, refused, kept=kept), self.now)
        template = decided.template
        left = [effects_before_crash]

        def effect() -> None:
            if left[0] is not None:
                if left[0] == 0:
                    raise CrashError
                left[0] -= 1

        if template and self.kept != template:
            effect()
            self.kept = template
        if self.wanted and decided.wanted and self.wanted.gone != decided.wanted.gone:
            effect()
            self.wanted = decided.wanted
        made = []
        for new in decided.create:
            effect()
            made.append(self._create(new.slot, new.incarnation, digest(template)))
        if decided.wanted is not None and (record is not None or made):
            effect()
            known = {*decided.wanted.known, *(pod.uid for pod in made)}
            self.wanted = replace(decided.wanted, known=tuple(sorted(known)))
        self._write_status(job, decided, record, effect)
        for pod in decided.delete:
            effect()
            self.ask_to_go(pod.name)
        if decided.delete_job:
            effect()
            self.deleted = True
        return decided

    def _write_status(self, job: Job, decided: Plan, record: Record | None, effect: Effect) -> None:
        doomed = {pod.uid for pod in decided.delete}
        after = [
            replace(pod, deleting=True) if pod.uid in doomed else pod for pod in self.pods.values()
        ]
        rendered = render_status(report(job, decided.status, after, record, None, self.now))
        if rendered != self.status:
            effect()
            self.status = rendered

    def _create(self, slot: int, incarnation: int, template_hash: str) -> Pod:
        name = f"demo-w{slot}-{incarnation}"
        if name in self.pods:
            return self.pods[name]
        self.created += 1
        pod = make_pod(
            slot,
            incarnation,
            uid=f"uid-{self.created}",
            template_hash=template_hash,
            phase="Pending",
            ready=False,
            created=self.now,
        )
        self._check_confirmed(slot)
        self.pods[name] = pod
        self.made_of.add(template_hash)
        return pod

    def _check_confirmed(self, slot: int) -> None:
        """Note predecessors that are out of the way and yet not confirmed as gone."""
        if self.wanted is None:
            return
        known = set(self.wanted.known)
        for pod in self.pods.values():
            if pod.slot == slot and pod.uid in known:
                self.confirmed_late.append(pod.uid)

    def run(self, name: str) -> None:
        """Let a pod run."""
        pod = self.pods[name]
        if pod.ended is None:
            self.pods[name] = replace(pod, phase="Running", ready=True)

    def end(self, name: str, code: int, verdict: str, sidecar: bool = False) -> None:
        """End a pod's worker, and with it the pod unless a sidecar goes on."""
        pod = self.pods[name]
        if pod.ended is not None:
            return
        self.failures += not pod.deleting and verdict not in ("Done", "Drained", "Fenced")
        phase = "Running" if sidecar else "Succeeded" if code == 0 else "Failed"
        ended = make_end(code, verdict, at=float(int(self.now)))
        self.pods[name] = replace(pod, phase=phase, ready=False, ended=ended, held=sidecar)

    def ask_to_go(self, name: str) -> None:
        """Delete a pod as a user or the operator does; an unbound one is gone at once."""
        pod = self.pods.get(name)
        if pod is None:
            return
        if pod.phase == "Pending" or pod.ended is not None:
            del self.pods[name]
        elif not pod.deleting:
            self.pods[name] = replace(pod, deleting=True, doomed_since=self.now + 60)

    def kill(self, name: str) -> None:
        """Delete a pod whose grace period is too short for it."""
        self.ask_to_go(name)
        if name in self.pods:
            self.end(name, 137, "")

    def fade(self, name: str) -> None:
        """Show a pod in the moment in which the API server takes it away."""
        pod = self.pods[name]
        self.pods[name] = replace(pod, deleting=True, doomed_since=self.now, vanishing=True)

    def vanish(self, name: str) -> None:
        """Take a pod away without a trace."""
        del self.pods[name]

    def lose_lease(self) -> None:
        """Delete the Lease by hand, with all that launchers wrote there."""
        self.wanted, self.view, self.completed = None, None, False

    def lose_template(self) -> None:
        """Delete the Service by hand, with the template that it keeps."""
        self.kept = None

    def complete(self) -> None:
        """Let the coordinator record the completion, where there is a Lease."""
        self.completed = self.wanted is not None

    def parsed(self) -> Status:
        """The status as the operator reads it."""
        return parse_status(self.status)

    def settle(self, looks: int = 12) -> None:
        """Look until nothing changes any more, following the plan's own alarm clock."""
        for _ in range(looks):
            before = (dict(self.status), dict(self.pods), self.wanted)
            decided = self.look()
            if self.deleted or before == (self.status, self.pods, self.wanted):
                if decided.wake_at is None or self.deleted:
                    return
                self.now = max(self.now + 1, decided.wake_at)
