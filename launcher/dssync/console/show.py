"""Answers as text for people. Pure."""

from collections.abc import Sequence

from dssync.control.requests import MemberStatus, PodStatus, Status


def status_text(status: Status) -> str:
    """Return a job's status as a sentence and two tables."""
    pods: list[tuple[str, ...]] = [("SLOT", "STATE", "WORKERS", "HEARD", "NODE")]
    pods += [_pod(each, each.slot == status.coordinator) for each in status.pods]
    members: list[tuple[str, ...]] = [("MEMBER", "PHASE", "ROUND", "COUNTS")]
    members += [_member(each) for each in status.members]
    return "\n\n".join((_summary(status), _table(pods), _table(members)))


def _summary(status: Status) -> str:
    active = sum(each.phase == "active" for each in status.members)
    words = [
        f"job {status.job}: term {status.term}, view {status.view}, round {status.round}",
        f"{active} of {len(status.members)} members active",
        f"{len(status.pods)} of {status.desired} launchers (at least {status.minimum})",
    ]
    if status.batches_total:
        done = 100 * status.batches_committed / status.batches_total
        words.append(f"{done:.1f} % of {status.batches_total} batches committed")
    if status.completed:
        words.append("completed")
    return ", ".join(words)


def _pod(pod: PodStatus, coordinates: bool) -> tuple[str, ...]:
    slot = f"{pod.slot}*" if coordinates else str(pod.slot)
    return slot, pod.state, str(pod.workers), f"{pod.heard_seconds:.1f} s ago", pod.node or "-"


def _member(member: MemberStatus) -> tuple[str, ...]:
    slot, rank, incarnation = member.member.split(".", 2)
    name = f"{slot}.{rank}.{incarnation[:8]}"
    current = str(member.round) if member.round >= 0 else "-"
    return name, member.phase, current, "yes" if member.weighted else "no"


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
