"""Pods of one job as bytes that differ in slot and incarnation only.

Building a pod from its template and writing it as JSON costs as much as sending it. The pods of a
job are the same up to two numbers, so one is made with numbers that occur nowhere else, and the
others by putting their own in the place of these.
"""

import secrets
from dataclasses import dataclass

import msgspec

from dssync_operator import resources
from dssync_operator.job import Job, Manifest
from dssync_operator.plan import NewPod


@dataclass(frozen=True)
class Mould:
    """A pod with two numbers to be filled in."""

    body: bytes
    slot: bytes
    incarnation: bytes

    def cast(self, new: NewPod) -> bytes:
        """The pod of one slot and incarnation, as JSON."""
        body = self.body.replace(self.slot, b"%d" % new.slot)
        return body.replace(self.incarnation, b"%d" % new.incarnation)


class Moulds:
    """The moulds of one job, each made when its first pod is."""

    def __init__(self, job: Job, template: Manifest, template_hash: str) -> None:
        self._job = job
        self._template = template
        self._template_hash = template_hash
        self._made: dict[tuple[str, tuple[str, ...]], Mould] = {}

    def cast(self, new: NewPod) -> bytes:
        """The pod of ``resources.pod``, as JSON."""
        key = (new.created_for, new.shunned)
        mould = self._made.get(key)
        if mould is None:
            mould = self._made[key] = self._make(new)
        return mould.cast(new)

    def _make(self, new: NewPod) -> Mould:
        # So long and so random that no template holds them, nor one of them the other.
        slot, incarnation = (10**29 + secrets.randbelow(9 * 10**29) for _ in range(2))
        stand_in = NewPod(slot, incarnation, new.created_for, new.shunned)
        pod = resources.pod(self._job, self._template, self._template_hash, stand_in)
        return Mould(msgspec.json.encode(pod), b"%d" % slot, b"%d" % incarnation)
