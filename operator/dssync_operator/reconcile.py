"""One look at one job: observe, plan, act, write the status once.

Every step may fail or be the process's last; the next look starts from what exists and comes to
the same end. Three orders make that true: what confirms a pod's exit is written before the pod
is replaced, what counts a pod's failure is written before the pod is deleted, and a verdict is
written before anything is cleaned up.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from dssync import contract
from dssync_operator import errors, resources
from dssync_operator.children import Children, oversize
from dssync_operator.cluster import Cluster
from dssync_operator.echoes import Echoes
from dssync_operator.events import Damper, Note, announce, manifest_of
from dssync_operator.job import (
    JOB_TYPE,
    MANAGER,
    Job,
    Manifest,
    WorkerRbac,
    child,
    digest,
    number,
    parse_job,
)
from dssync_operator.maker import Made, PodMaker
from dssync_operator.metrics import Metrics
from dssync_operator.paths import job_path, lease_path, pod_path, pods_path
from dssync_operator.plan import NewPod, Plan, Seen, plan, tell_made
from dssync_operator.pod import Pod, is_pod_of, parse_pod
from dssync_operator.policies.template import needs_dry_run, recall
from dssync_operator.queue import Key
from dssync_operator.record import Record, Wanted, parse_record
from dssync_operator.report import not_permitted, report
from dssync_operator.settings import Settings
from dssync_operator.states import States
from dssync_operator.status import RUNNING, Status, parse_status, render_status
from dssync_operator.topology import Topology

_log = logging.getLogger(__name__)
PROMISES: Final = ("WorkerLost",)
"""Reasons of notes that speak of pods that are made in the same look."""
TOKEN_RECREATED: Final = (
    "Secret {} was gone and is made anew with another token: pods from before do not talk to new "
    "ones, so suspend the job and resume it"
)


@dataclass(frozen=True)
class _Look:
    """What one look knows: the job as it was read, and what exists of it."""

    metadata: Manifest
    seen: Seen


class Reconciler:
    """Looks at jobs, one call at a time for each."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        metrics: Metrics,
        wall: Callable[[], float] = time.time,
        echoes: Echoes | None = None,
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._metrics = metrics
        self._wall = wall
        self._children = Children(cluster, settings, metrics)
        self._maker = PodMaker(
            cluster, settings, metrics, echoes or Echoes(), lambda: self._looking
        )
        self._topology = Topology(cluster, settings.topology_keys)
        self._damper = Damper()
        self._looking = 0
        self._deleting = asyncio.Semaphore(settings.concurrency)
        self._states = States(metrics)
        self._written_at: dict[Key, float] = {}
        self._uids: dict[Key, str] = {}

    def known(self) -> frozenset[Key]:
        """Jobs that existed at the last look at them."""
        return frozenset(self._uids)

    async def look(self, key: Key) -> float | None:
        """Bring one job closer to what its spec says.

        Returns:
            In how many seconds to look again if nothing happens; None for no need.

        Raises:
            ApiError: Something could not be done; look again later.
        """
        self._looking += 1
        try:
            look = await self._observe(key)
            if look is None:
                return None
            return await self._act(key, look, plan(look.seen, self._wall()))
        finally:
            self._looking -= 1

    async def _observe(self, key: Key) -> _Look | None:
        try:
            manifest = await self._cluster.get(job_path(key))
        except errors.NotFoundError:
            self._forget(key)
            return None
        job = parse_job(manifest, self._settings.worker_rbac)
        if job.deleting or job.spec.managed_by not in (None, MANAGER):
            self._forget(key)
            return None
        if self._uids.get(key) != job.uid:
            self._forget(key)  # one before it may have had its name
            self._uids[key] = job.uid
        pods = await self._pods(job)
        status = recall(parse_status(job.status), pods)
        kept = await self._kept_template(job, status)
        problem = await self._dry_run(job) if needs_dry_run(job, status, kept, pods) else None
        nodes = await self._topology.paths(job.spec.topology_keys, (pod.node for pod in pods))
        record = await self._record(job)
        seen = Seen(job, pods, record, problem, nodes, self._topology.covers(job), kept)
        return _Look(child(manifest, "metadata"), seen)

    async def _pods(self, job: Job) -> tuple[Pod, ...]:
        selector = f"{contract.LABEL_JOB_UID}={job.uid}"
        pages = self._cluster.pages(pods_path(job.namespace), selector)
        return tuple(
            [parse_pod(pod) async for page, _ in pages for pod in page if is_pod_of(pod, job.uid)]
        )

    async def _record(self, job: Job) -> Record | None:
        # Without rights for workers there is no Lease either, and the operator may not ask for one.
        if job.spec.rendezvous.static or job.worker_rbac is WorkerRbac.NONE:
            return None
        try:
            return parse_record(await self._cluster.get(lease_path(job)))
        except errors.NotFoundError:
            return None

    async def _dry_run(self, job: Job) -> str | None:
        """Let the API server judge the template; only a definite refusal makes it invalid."""
        new = NewPod(0, 10**9, "DryRun")  # a name that a pod of an older job does not have
        template = job.spec.template
        too_large = oversize(template)
        if too_large is not None:
            return too_large
        try:
            # The job's own account does not exist yet, and the server would look no further.
            bare = replace(job, worker_rbac=WorkerRbac.NONE)
            pod = resources.pod(bare, template, digest(template), new)
            await self._cluster.create(pods_path(job.namespace), pod, dry_run=True)
        except errors.InvalidError as error:
            return str(error)
        except errors.UnavailableError:
            raise
        except errors.ApiError as error:
            _log.warning("dry run for job %s/%s: %s", job.namespace, job.name, error)
        return None

    async def _kept_template(self, job: Job, status: Status) -> Manifest | None:
        """The accepted template, where the job's own is another one."""
        if status.finished or status.template_hash in ("", digest(job.spec.template)):
            return None
        return await self._children.kept_template(job, status.template_hash)

    async def _act(self, key: Key, look: _Look, decided: Plan) -> float | None:
        job, seen = look.seen.job, look.seen
        notes = list(decided.notes)
        if decided.template:
            await self._ensure_children(key, look, decided)
        record_first = _confirms_exits(seen.record, decided)
        if record_first and decided.wanted is not None:
            await self._children.write_record(job, decided.wanted)
        noticed_at = time.perf_counter()
        made = await self._maker.make(job, decided.template, decided.create)
        if any(new.created_for == "Replace" for new in decided.create):
            self._metrics.replacement_seconds.observe(time.perf_counter() - noticed_at)
        wanted = _with_made(decided.wanted, made)
        if wanted is not None and _outdated(seen, decided, wanted, record_first):
            notes += await self._write_record(job, seen, decided, wanted)
        status = self._report(seen, decided, made)
        wait = await self._write_status(key, look, status)
        notes += tell_made(made.pods, decided.create)
        kept = await self._clean(job, decided)
        # Even if that failed: the next look finds the status written, and nothing to tell.
        await self._tell(job, (*announce(parse_status(job.status), status), *notes))
        self._observe_state(key, status)
        failure = made.failure or kept
        if failure is not None:
            raise failure
        return _sooner(wait, decided.wake_at, self._wall())

    async def _ensure_children(self, key: Key, look: _Look, decided: Plan) -> None:
        """Make the children; a right or a quota that is missing shows, since no pod will."""
        job = look.seen.job
        try:
            made_token = await self._children.ensure(job, decided.template)
        except errors.ForbiddenError as error:
            before = parse_status(job.status)
            status = self._report(look.seen, decided, Made((), None))
            advice = (
                "; give the operator the right, or raise the quota" if error.code == 403 else ""
            )
            status = not_permitted(before, status, f"{error}{advice}", self._wall())
            await self._write_status(key, look, status)
            happened = [note for note in decided.notes if note.reason not in PROMISES]
            await self._tell(job, (*announce(before, status), *happened))
            self._observe_state(key, status)
            raise
        if made_token and any(pod.live for pod in look.seen.pods):
            note = Note("TokenRecreated", TOKEN_RECREATED.format(job.child_name))
            await self._tell(job, (note,))

    async def _write_record(
        self, job: Job, seen: Seen, decided: Plan, wanted: Wanted
    ) -> tuple[Note, ...]:
        membership = child(job.status, "membership")
        if seen.record is None and membership:
            await self._children.restore_record(job, wanted, number(membership, "term", 0))
            return (Note("LeaseRecreated", f"Lease {job.child_name} was gone and is made anew"),)
        await self._children.write_record(job, wanted)
        return ()

    def _report(self, seen: Seen, decided: Plan, made: Made) -> Status:
        doomed = {pod.uid for pod in decided.delete}
        after = [
            replace(pod, deleting=True) if pod.uid in doomed else pod
            for pod in (*seen.pods, *made.pods)
        ]
        trouble = None if made.failure is None else str(made.failure)
        return report(seen.job, decided.status, after, seen.record, trouble, self._wall())

    async def _write_status(self, key: Key, look: _Look, status: Status) -> float | None:
        """Write it if it is different; a mere progress waits for its turn.

        Returns:
            After how many seconds a progress that was held back is due.
        """
        rendered, before = render_status(status), look.seen.job.status
        if rendered == before:
            return None
        now = self._wall()
        due = self._written_at.get(key, 0.0) + self._settings.progress_seconds
        if now < due and _without_progress(rendered) == _without_progress(before):
            return due - now
        # Without the spec, and without who owns which field: both stay as they are, and to read
        # them is a fifth of the write. What else of the metadata were left out would be disowned.
        metadata = {k: v for k, v in look.metadata.items() if k != "managedFields"}
        manifest = {**JOB_TYPE, "metadata": metadata, "status": rendered}
        await self._cluster.replace(f"{job_path(key)}/status", manifest)
        self._written_at[key] = now
        return None

    async def _clean(self, job: Job, decided: Plan) -> errors.ApiError | None:
        """Delete what has to go, the job last; return what kept something from going."""
        try:
            await asyncio.gather(*(self._delete(job, pod) for pod in decided.delete))
            if decided.delete_job:
                await self._cluster.delete(job_path((job.namespace, job.name)), job.uid)
        except errors.ApiError as error:
            return error
        return None

    async def _delete(self, job: Job, pod: Pod) -> None:
        async with self._deleting:
            await self._cluster.delete(pod_path(job, pod.name), pod.uid)

    async def _tell(self, job: Job, notes: tuple[Note, ...]) -> None:
        """Post events; that one is lost is no reason to look again."""
        for note in self._damper.admit(job.uid, notes, self._wall()):
            try:
                path, event = manifest_of(job, note, self._wall(), self._settings.identity)
                await self._cluster.create(path, event)
            except errors.ApiError as error:
                _log.info("event %s of job %s/%s: %s", note.reason, job.namespace, job.name, error)

    def _observe_state(self, key: Key, status: Status) -> None:
        state, clock = str(status.display.get("state", "")), status.clock
        since = max((each.since for each in status.conditions.values()), default=self._wall())
        before = self._states.note(key, state, self._wall(), since)
        if before in (None, state):
            return
        if status.is_true(RUNNING) and clock.world_formed and clock.started:
            self._metrics.time_to_running_seconds.observe(clock.world_formed - clock.started)

    def _forget(self, key: Key) -> None:
        self._states.forget(key)
        self._written_at.pop(key, None)
        uid = self._uids.pop(key, "")
        self._damper.forget(uid)
        self._children.forget(uid)


def _confirms_exits(record: Record | None, decided: Plan) -> bool:
    """Whether launchers must read of an exit before the replacement exists."""
    before = record.wanted if record else None
    return before is not None and decided.wanted is not None and before.gone != decided.wanted.gone


def _with_made(wanted: Wanted | None, made: Made) -> Wanted | None:
    if wanted is None:
        return None
    return replace(wanted, known=tuple(sorted({*wanted.known, *(pod.uid for pod in made.pods)})))


def _outdated(seen: Seen, decided: Plan, wanted: Wanted, record_first: bool) -> bool:
    """Whether the Lease says something else than ``wanted``."""
    never_made = seen.record is None and "membership" not in seen.job.status
    if decided.status.finished or (decided.status.clock.started is None and never_made):
        return False
    written = decided.wanted if record_first else seen.record.wanted if seen.record else None
    return written != wanted


def _without_progress(status: Manifest) -> dict[str, object]:
    return {key: value for key, value in status.items() if key != "progress"}


def _sooner(wait: float | None, wake_at: float | None, now: float) -> float | None:
    waits = [
        seconds
        for seconds in (wait, None if wake_at is None else wake_at - now)
        if seconds is not None
    ]
    return max(0.0, min(waits)) if waits else None
