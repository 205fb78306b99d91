"""What to do with one job now: the whole of the operator's judgement, as a pure function.

``plan`` reads the job, its pods and its record as they are at one moment, and returns what to
create, delete and write, and when to look again. It never waits and never remembers: everything
that must outlive this look is in the status it returns, which is why that status is written
before any pod whose end it counts is deleted.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

from dssync_operator.events import Note
from dssync_operator.job import Job, Manifest, digest
from dssync_operator.pod import Pod
from dssync_operator.policies import failure, lifecycle, nodes, scaling, template
from dssync_operator.policies.failure import Judgement, Outcome
from dssync_operator.policies.lifecycle import Verdict
from dssync_operator.record import Record, Wanted, nodes_fit
from dssync_operator.status import ACCEPTED, FAILED, SUSPENDED, Moved, Status, parse_status


@dataclass(frozen=True)
class Seen:
    """One job and what exists of it.

    Attributes:
        record: Its Lease; None where there is none.
        template_problem: What the dry run of the present template said; None when it was
            accepted, or needs no run.
        nodes: Node name to zone/rack path, as far as it is known.
        places: Whether launchers can know more of their nodes than the names.
        kept: The accepted template, where the job's own is another one; None where it is lost.
    """

    job: Job
    pods: tuple[Pod, ...]
    record: Record | None
    template_problem: str | None = None
    nodes: Mapping[str, str] = field(default_factory=dict)
    places: bool = True
    kept: Manifest | None = None


@dataclass(frozen=True)
class NewPod:
    """A pod to make; name and content follow from this and the job."""

    slot: int
    incarnation: int
    created_for: str
    shunned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What to do, in the order of the attributes.

    Attributes:
        template: What to make children and pods from; empty where none are made.
        wanted: What the Lease should hold; None in a job without one.
        create: Pods to make.
        status: What to remember. It is written before anything is deleted.
        delete: Pods to delete.
        delete_job: Whether the job itself has outlived its use.
        wake_at: When to look again if nothing happens, in seconds since 1970.
        notes: Events that are more than a changed condition.
    """

    status: Status
    template: Manifest = field(default_factory=dict)
    wanted: Wanted | None = None
    create: tuple[NewPod, ...] = ()
    delete: tuple[Pod, ...] = ()
    delete_job: bool = False
    wake_at: float | None = None
    notes: tuple[Note, ...] = ()


def plan(seen: Seen, now: float) -> Plan:
    """Decide about one job.

    Args:
        seen: The job and what exists of it.
        now: Seconds since 1970.
    """
    job = seen.job
    status = replace(parse_status(job.status), observed_generation=job.generation)
    if status.finished:
        return _finished(seen, status, now)
    status = _check_template(seen, template.recall(status, seen.pods), now)
    if seen.record is not None and seen.record.completed:
        fresh: tuple[tuple[Pod, Judgement], ...] = ()  # exits after the completion are no failures
    else:
        tally, fresh = failure.account(status.tally, seen.pods, job.spec.failure_policy, now)
        status = replace(status, tally=tally)
    status = _keep_first_words(status, fresh)
    status = _note_times(seen, status, now)
    verdict = _verdict(seen, status, fresh, now)
    notes = tuple(_tell(pod, judgement) for pod, judgement in fresh)
    if verdict is not None:
        return replace(_finish(seen, status, verdict, now), notes=notes)
    if job.spec.lifecycle.suspend:
        return replace(_suspend(seen, status, now), notes=notes)
    if not template.accepted(status):
        return Plan(status, notes=notes)
    step = _run(seen, status, now)
    return replace(step, notes=notes + step.notes)


def _check_template(seen: Seen, status: Status, now: float) -> Status:
    current = digest(seen.job.spec.template)
    if seen.template_problem is not None:
        status = replace(status, template_hash=current)
        return status.with_condition(
            ACCEPTED, False, "InvalidPodTemplate", seen.template_problem, now
        )
    if template.needs_dry_run(seen.job, status, seen.kept, seen.pods):
        status = replace(status, template_hash=current)
    if current != status.template_hash:
        message = template.why_it_waits(seen.kept)
        return status.with_condition(ACCEPTED, False, "TemplateChangedWhileRunning", message, now)
    message = "; ".join(["spec and template are valid", *_unplaced(seen)])
    return status.with_condition(ACCEPTED, True, "Valid", message, now)


def _unplaced(seen: Seen) -> tuple[str, ...]:
    """Why launchers cannot know more of their nodes than the names."""
    if not seen.places:
        return (nodes.NAMES_ONLY,)
    return () if nodes_fit(seen.nodes) else (nodes.TOO_LONG.format(len(seen.nodes)),)


def _keep_first_words(status: Status, fresh: tuple[tuple[Pod, Judgement], ...]) -> Status:
    """Keep what the first failed worker said; later ones mostly complain about its absence."""
    for pod, judgement in fresh:
        if judgement.outcome in (Outcome.FAILED, Outcome.FATAL) and not status.termination_message:
            return replace(status, termination_message=_last_words(pod, judgement))
    return status


def _last_words(pod: Pod, judgement: Judgement) -> str:
    ended = pod.ended
    code = (
        "without an exit code"
        if ended is None or ended.exit_code is None
        else f"with exit code {ended.exit_code}"
    )
    said = ended.message.strip().splitlines()[-1:] if ended else []
    return ": ".join([f"pod {pod.name} ended {code} ({judgement.reason})", *said])[:1024]


def _note_times(seen: Seen, status: Status, now: float) -> Status:
    """Keep when the world formed, when it last moved, and since when too few pods run."""
    clock, spec = status.clock, seen.job.spec
    if clock.started is None:
        return status
    told = seen.record.progress if seen.record else None
    if told is not None and (status.progress is None or status.progress.step != told.step):
        status = replace(status, progress=Moved(told.step, float(int(now))))
    running = sum(pod.live and pod.phase == "Running" for pod in seen.pods)
    if clock.world_formed is None and _world_formed(seen, status, running):
        clock = replace(clock, world_formed=now)
    if clock.world_formed is None or running + len(status.tally.done) >= spec.min_replicas:
        clock = replace(clock, below_min=None)
    elif clock.below_min is None:
        clock = replace(clock, below_min=now)
    return replace(status, clock=clock)


def _world_formed(seen: Seen, status: Status, running: int) -> bool:
    """A new view tells it; without a Lease, enough running pods have to do."""
    if seen.job.spec.rendezvous.static:
        return running >= seen.job.spec.min_replicas
    view = seen.record.view if seen.record else None
    return view is not None and view.pods > 0 and view_name(seen.record) != status.stale_view


def view_name(record: Record | None) -> str:
    """Term and sequence of the record's view, such as ``3.17``; empty without one."""
    view = record.view if record else None
    return "" if view is None else f"{view.term}.{view.sequence}"


def _verdict(
    seen: Seen, status: Status, fresh: tuple[tuple[Pod, Judgement], ...], now: float
) -> Verdict | None:
    """Success first: who has completed cannot fail any more."""
    spec = seen.job.spec
    success = lifecycle.succeeded(spec, status, seen.pods, seen.record)
    if success is not None:
        return success
    for pod, judgement in fresh:
        if judgement.outcome is Outcome.FATAL:
            by_rule = judgement.reason.startswith("Rule ")
            reason = "FailJobRuleMatched" if by_rule else "WorkerExited"
            return Verdict(FAILED, reason, _last_words(pod, judgement))
    sentence = failure.exhausted(status.tally, spec.failure_policy)
    if sentence is not None:
        return Verdict(
            FAILED, "BackoffLimitExceeded", f"{sentence}; first: {status.termination_message}"
        )
    if spec.lifecycle.suspend:
        return None
    due = [verdict for at, verdict in lifecycle.deadlines(spec, status.clock) if at <= now]
    return due[0] if due else None


def _finish(seen: Seen, status: Status, verdict: Verdict, now: float) -> Plan:
    """Latch the verdict; the pods go only after it is written."""
    status = status.with_condition(verdict.condition, True, verdict.reason, verdict.message, now)
    status = replace(status, clock=replace(status.clock, finished=now, below_min=None))
    return _finished(seen, status, now)


def _finished(seen: Seen, status: Status, now: float) -> Plan:
    spec = seen.job.spec
    expiry = lifecycle.expires_at(spec, status.clock, seen.record)
    stop_at = lifecycle.stop_at(status.clock, seen.record)
    left = lifecycle.leftovers(spec.lifecycle.clean_pod_policy, seen.pods)
    return Plan(
        status,
        delete=left if stop_at <= now else (),
        delete_job=expiry is not None and expiry <= now,
        wake_at=min(
            (at for at in (stop_at if left else None, expiry) if at is not None and at > now),
            default=None,
        ),
    )


def _suspend(seen: Seen, status: Status, now: float) -> Plan:
    """Drain everything. Suspended is true only once nothing is left, since quota counts pods."""
    status = replace(
        status,
        desired=None,
        stale_view=view_name(seen.record),
        clock=replace(
            status.clock, started=None, world_formed=None, below_min=None, scale_down=None
        ),
    )
    left = len(seen.pods)
    if left == 0:
        status = status.with_condition(SUSPENDED, True, "JobSuspended", "no pod is left", now)
    else:
        status = status.with_condition(SUSPENDED, False, "Draining", f"{left} pods are left", now)
    # A template that was changed during the drain can be taken over now; nothing else tells of it.
    unchecked = left == 0 and digest(seen.job.spec.template) != status.template_hash
    return Plan(
        status,
        wanted=_wanted(seen, 0, ()),
        delete=tuple(pod for pod in seen.pods if not pod.deleting),
        wake_at=now if unchecked else None,
    )


def _run(seen: Seen, status: Status, now: float) -> Plan:
    """Bring the pods to the number wanted."""
    spec = seen.job.spec
    before = status.desired
    status = _start(seen, scaling.aim(status, spec, now), now)
    desired = spec.replicas if status.desired is None else status.desired
    idle = seen.record.idle(pod.uid for pod in seen.pods) if seen.record else ()
    placement = scaling.place(desired, seen.pods, status.tally.done, spec.rendezvous.static, idle)
    due = {
        slot: failure.earliest(slot, seen.pods, status.tally, spec.failure_policy.rules)
        for slot in placement.fill
    }
    source = template.chosen(seen.job, status, seen.kept)
    ripe = [slot for slot, at in due.items() if at <= now and source]
    create = tuple(_new_pod(seen, slot, before) for slot in ripe)
    filled = {pod.slot for pod in create}
    replaced = tuple(pod.uid for pod in seen.pods if pod.slot in filled and pod.deleting)
    wanted = _wanted(seen, desired, replaced)
    return Plan(
        status,
        template=source,
        wanted=wanted,
        create=create,
        delete=(*placement.drain, *_superseded(seen, status, due.keys() - filled)),
        wake_at=_next_look(seen, status, due, now),
        notes=(*_tell_lost(seen, wanted, create), *_tell_scaling(before, desired)),
    )


def _start(seen: Seen, status: Status, now: float) -> Status:
    """Begin the clocks of a first start or of a resume."""
    if SUSPENDED in status.conditions and status.clock.started is None:
        status = status.with_condition(SUSPENDED, False, "JobResumed", "the job runs again", now)
    if status.clock.started is not None:
        return status
    status = replace(status, clock=replace(status.clock, started=now))
    # An operator that died before it wrote anything may find a world that has long formed.
    return _note_times(seen, status, now)


def _new_pod(seen: Seen, slot: int, before: int | None) -> NewPod:
    last = failure.newest(slot, seen.pods)
    reason = "Replace" if last is not None else "Start" if before is None else "Fill"
    return NewPod(
        slot,
        0 if last is None else last.incarnation + 1,
        reason,
        failure.shunned(slot, seen.pods, seen.job.spec.failure_policy.rules),
    )


def _superseded(seen: Seen, status: Status, waiting: Collection[int]) -> tuple[Pod, ...]:
    """Ended pods that are counted and have no use any more.

    The newest ended pod of a slot stays, so that its log can be read, unless a sidecar goes on:
    then it holds what its replacement may need. While that has to wait, the pod tells why.
    """
    latest: dict[int, int] = {}
    for pod in seen.pods:
        if pod.ended is not None and not pod.held:
            latest[pod.slot] = max(latest.get(pod.slot, -1), pod.incarnation)
    return tuple(
        pod
        for pod in seen.pods
        if pod.uid in status.tally.accounted
        and not pod.deleting
        and (pod.slot not in waiting if pod.held else pod.incarnation < latest.get(pod.slot, -1))
    )


def _wanted(seen: Seen, desired: int, replaced: tuple[str, ...]) -> Wanted | None:
    spec = seen.job.spec
    if spec.rendezvous.static:
        return None
    before = seen.record.wanted if seen.record else None
    wanted = before or Wanted(desired, spec.min_replicas, spec.max_replicas)
    wanted = wanted.confirm(
        (pod.uid for pod in seen.pods),
        (*replaced, *(pod.uid for pod in seen.pods if pod.ended is not None)),
    )
    return replace(
        wanted,
        desired=desired,
        minimum=spec.min_replicas,
        maximum=spec.max_replicas,
        nodes=seen.nodes if nodes_fit(seen.nodes) else {},
    )


def _next_look(seen: Seen, status: Status, due: Mapping[int, float], now: float) -> float | None:
    spec = seen.job.spec
    moments = [at for at in due.values() if at > now]
    moments += [at for at, _ in lifecycle.deadlines(spec, status.clock)]
    moments += [
        incident.time + spec.failure_policy.window_seconds for incident in status.tally.incidents
    ]
    moments += [pod.doomed_since + nodes.STUCK_SECONDS for pod in seen.pods if pod.doomed_since]
    stalls = lifecycle.stalls_at(spec, status)
    if stalls is not None:
        moments.append(stalls)
    if status.clock.scale_down is not None and spec.elastic is not None:
        moments.append(status.clock.scale_down + spec.elastic.stabilization_seconds)
    return min((at for at in moments if at > now), default=None)


def _tell(pod: Pod, judgement: Judgement) -> Note:
    match judgement.outcome:
        case Outcome.FAILED | Outcome.FATAL:
            return Note("WorkerFailed", _last_words(pod, judgement))
        case Outcome.PLANNED:
            return Note("WorkerDrained", f"pod {pod.name} ended without fault ({judgement.reason})")
    return Note("WorkerDone", f"pod {pod.name} ended with verdict Done")


def _tell_lost(seen: Seen, wanted: Wanted | None, create: tuple[NewPod, ...]) -> tuple[Note, ...]:
    """Pods that vanished or are stuck, where others take their places; drained ones have none."""
    before = seen.record.wanted if seen.record else None
    if before is None or wanted is None or not create:
        return ()
    ended = {pod.uid for pod in seen.pods if pod.ended is not None}
    lost = set(wanted.gone) - set(before.gone) - ended
    slots = ", ".join(str(pod.slot) for pod in create[:10])
    message = f"{len(lost)} pods are gone without a word; new ones are made for slots {slots}"
    return (Note("WorkerLost", message),) if lost else ()


def tell_made(made: Collection[Pod], wanted: Iterable[NewPod]) -> tuple[Note, ...]:
    """Tell of the pods that were made, those in place of others apart from the rest."""
    replaced = {new.slot for new in wanted if new.created_for == "Replace"}
    slots = sorted(pod.slot for pod in made if pod.slot in replaced)
    others = len(made) - len(slots)
    notes = [Note("WorkerCreated", f"created {others} pods")] if others else []
    if slots:
        named = ", ".join(map(str, slots[:10])) + (", ..." if len(slots) > 10 else "")
        message = f"created {len(slots)} pods in place of others, for slots {named}"
        notes.append(Note("WorkerReplaced", message))
    return tuple(notes)


def _tell_scaling(before: int | None, desired: int) -> tuple[Note, ...]:
    if before is None or before == desired:
        return ()
    reason = "ScaledUp" if desired > before else "ScaledDown"
    return (Note(reason, f"from {before} to {desired} pods"),)
