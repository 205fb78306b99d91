"""The record of the largest job, at its largest."""

import random
import uuid

from dssync import contract
from dssync.control.record import launchers_value, missing_value
from dssync.control.takeover import Launcher
from dssync_operator.record import MAX_GONE, Wanted

PODS = 2000


class Largest:
    """2,000 pods on 2,000 nodes; names as clusters give them, which have little in common."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        uids = self.uids(PODS)
        self.wanted = Wanted(
            desired=PODS,
            minimum=1,
            maximum=PODS,
            known=tuple(sorted(uids)),
            gone=self.uids(MAX_GONE),
            nodes=self._nodes(),
        )
        self.launchers = tuple(self._launcher(slot, uid) for slot, uid in enumerate(uids))
        listed = {contract.RECORD_LAUNCHERS: launchers_value(self.launchers)}
        listed[contract.RECORD_MISSING] = missing_value(self.launchers)
        self.annotations = self.wanted.annotations() | listed

    def uids(self, count: int) -> tuple[str, ...]:
        return tuple(
            str(uuid.UUID(int=self._random.getrandbits(128), version=4)) for _ in range(count)
        )

    def _hex(self, bits: int) -> str:
        return f"{self._random.getrandbits(bits):0{bits // 4}x}"

    def _nodes(self) -> dict[str, str]:
        racks = [
            f"europe-west4-{zone}/block-{self._hex(32)}/subblock-{self._hex(64)}"
            for zone in "abc"
            for _ in range(60)
        ]
        names = (f"gke-training-eu-west4-a3-highgpu-8g-{self._hex(96)}" for _ in range(PODS))
        return {name: self._random.choice(racks) for name in names}

    def _launcher(self, slot: int, uid: str) -> Launcher:
        address = "2001:db8" + "".join(f":{self._hex(16)}" for _ in range(6))
        (boot,) = self.uids(1)
        ticks = self._random.getrandbits(28)
        return Launcher(slot, uid, f"[{address}]:29400", f"{boot}.4026531836/17/{ticks}")
