"""What happened in a run, told by the launchers' log lines.

A line is ``dssync EVENT key=value …`` with the monotonic time, which all processes of a machine
share; so the time from a kill to the commit of the hit round is one subtraction.
"""

import asyncio
import re
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

TIMEOUT_SECONDS: Final = 90.0
_LOSSES: Final = ("exit", "eof", "lease")


@dataclass(frozen=True)
class Line:
    """One log line of a launcher."""

    event: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> "Line | None":
        """Return the line, or None if somebody else wrote it."""
        words = text.split(" ")
        if len(words) < 3 or words[0] != "dssync" or "monotonic_seconds=" not in text:
            return None
        pairs = (word.partition("=") for word in words[2:])
        return cls(words[1], {key: value for key, _, value in pairs})

    @property
    def seconds(self) -> float:
        """When it was written."""
        return float(self.fields["monotonic_seconds"])

    @property
    def slot(self) -> int:
        """Slot of the member that it is about; -1 without one."""
        return int(self.fields.get("member", "-1.").split(".")[0])


@dataclass
class Event:
    """Something that the demo did to the job."""

    kind: str
    slot: int
    begun_seconds: float
    ended_seconds: float | None = None

    def report(self, story: "Story") -> dict[str, object]:
        """Return the event as ``build/demo.json`` tells it."""
        if self.ended_seconds is None:
            raise RuntimeError(f"the demo's {self.kind} did not end")
        return {
            "kind": self.kind,
            "milliseconds": round((self.ended_seconds - self.begun_seconds) * 1000, 1),
            "rounds_lost_elsewhere": story.rounds_lost_elsewhere(self),
        }


@dataclass
class Story:
    """The lines of a run so far, and what follows from them."""

    lines: list[Line] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    round: int = 0
    _grown: asyncio.Event = field(default_factory=asyncio.Event)

    def add(self, line: Line) -> None:
        """Take in a line."""
        self.lines.append(line)
        self._grown.set()

    def begin(self, kind: str, slot: int) -> Event:
        """Note that the demo does something to a slot now."""
        event = Event(kind, slot, time.monotonic())
        self.events.append(event)
        return event

    async def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait until a line makes the condition true.

        Raises:
            TimeoutError: it did not become true.
        """
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                while not condition():
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            raise TimeoutError(f"{what} did not happen in {TIMEOUT_SECONDS:g} s") from None

    async def until_round(self, number: int) -> None:
        """Wait until the first member has committed a round, as its launcher's metrics say.

        Raises:
            TimeoutError: it did not get there.
        """
        async with asyncio.timeout(TIMEOUT_SECONDS):
            while self.round < number:
                await asyncio.sleep(0.1)
                await self.look()

    async def look(self) -> None:
        """Ask a launcher how far its worker is."""
        address = next((x.fields["address"] for x in self.lines if x.event == "metrics"), None)
        if address is not None:
            self.round = await asyncio.to_thread(_round, address) or self.round

    @property
    def members(self) -> dict[str, int]:
        """Members that take part, with their slots."""
        present = {}
        for line in self.lines:
            if line.event == "join":
                present[line.fields["member"]] = line.slot
            elif line.event in ("evict", "leave"):
                present.pop(line.fields["member"], None)
        return present

    @property
    def coordinating_slot(self) -> int:
        """Slot of the launcher that coordinates."""
        return int(next(x.fields["slot"] for x in self.lines if x.event == "coordinating"))

    def pid_of_slot(self, slot: int) -> int:
        """Return the process of a slot's worker."""
        return int(next(x.fields["pid"] for x in self._about(slot, "started")[::-1]))

    def reformed(self, event: Event) -> bool:
        """Tell whether the group that was hit has committed its round; note when."""
        return self._ends(event, lambda x: x.event == "reform" and x.fields["cause"] in _LOSSES)

    def joined_since(self, event: Event, slot: int) -> bool:
        """Tell whether the member of a slot has committed its first round; note when."""
        joined = [x for x in self._about(slot, "contributes") if x.seconds > event.begun_seconds]
        if joined and event.kind == "join":
            event.ended_seconds = joined[0].seconds
        return bool(joined)

    def drained(self, event: Event) -> bool:
        """Tell whether a launcher has ended with the verdict of a drain; note when."""
        return self._ends(
            event, lambda x: x.event == "ended" and x.fields.get("verdict") == "Drained"
        )

    def rounds_lost_elsewhere(self, event: Event) -> int:
        """Count the retries of groups that lost nobody, from the event until it was over."""
        end = event.begun_seconds if event.ended_seconds is None else event.ended_seconds
        return sum(
            x.event == "reform"
            and event.begun_seconds <= x.seconds <= end
            and x.fields["cause"] not in _LOSSES
            for x in self.lines
        )

    def survivors_restarted(self) -> int:
        """Count workers that were started again although nobody killed or drained them."""
        starts = Counter(x.slot for x in self.lines if x.event == "started")
        touched = {event.slot for event in self.events}
        return sum(count - 1 for slot, count in starts.items() if slot not in touched)

    def _about(self, slot: int, event: str) -> list[Line]:
        return [x for x in self.lines if x.event == event and x.slot == slot]

    def _ends(self, event: Event, is_end: Callable[[Line], bool]) -> bool:
        ends = [x.seconds for x in self.lines if x.seconds > event.begun_seconds and is_end(x)]
        if ends:
            event.ended_seconds = ends[0]
        return bool(ends)


def _round(address: str) -> int | None:
    try:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=2) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    found = re.search(r'^dssync_round\{local_rank="0"\} (\S+)$', text, re.MULTILINE)
    return int(float(found[1])) if found else None
