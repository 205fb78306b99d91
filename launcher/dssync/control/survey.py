"""What a coordinator tells people about its job. Pure."""

from dssync.control.coordinator import Coordinator
from dssync.control.requests import MemberStatus, PodStatus, Status
from dssync.control.roster import Pod


def survey(coordinator: Coordinator, job: str, slot: int, now: float) -> Status:
    """Return the status of a coordinator's job.

    Args:
        coordinator: it.
        job: name of the job.
        slot: of the launcher that hosts the coordinator.
        now: seconds of the coordinator's clock.
    """
    world, ledger, settings = coordinator.world, coordinator.ledger, coordinator.job.settings
    pods = coordinator.roster.pods
    return Status(
        job=job,
        term=coordinator.job.term,
        coordinator=slot,
        view=0 if world is None else world.view.sequence,
        round=0 if world is None else world.rounds.next_round,
        batches_committed=ledger.committed,
        batches_total=ledger.total,
        completed=coordinator.completed,
        desired=settings.desired,
        minimum=settings.minimum,
        pods=tuple(_pod(pods[each], now) for each in sorted(pods)),
        members=_members(coordinator),
    )


def _pod(pod: Pod, now: float) -> PodStatus:
    lost = "lost" if pod.lost_seconds is not None else "connected"
    state = "draining" if pod.draining else lost
    silence = max(0.0, round(now - pod.heard_seconds, 3))
    return PodStatus(pod.slot, pod.place.node, pod.workers, state, silence)


def _members(coordinator: Coordinator) -> tuple[MemberStatus, ...]:
    world, roster = coordinator.world, coordinator.roster
    found = []
    for key, peer in roster.peers.items():
        open_rounds = () if world is None else world.rounds.holding(key)
        weighted = world is not None and key in world.view and key not in world.view.unweighted
        found.append(MemberStatus(key, peer.phase.value, min(open_rounds, default=-1), weighted))
    benched = roster.benched - roster.peers.keys()
    found += [MemberStatus(key, "benched", -1, False) for key in benched]
    return tuple(sorted(found, key=lambda each: _order(each.member)))


def _order(key: str) -> tuple[int, int, str]:
    slot, rank, incarnation = key.split(".", 2)
    return int(slot), int(rank), incarnation
