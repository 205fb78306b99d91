"""Plays a recorded history again: workers of one machine, and no coordinator.

Each worker gets its part (``control.replay``) in a file. This launcher brings them together: it
starts a joiner when its donor has come to the moment at which the state was given, passes the
addresses of groups on, and lets a worker go when its mates have its values. Nobody is killed on
purpose: who was killed in the log ends after the last attempt that its values went into.
"""

import asyncio
import secrets
import signal
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from dssync import contract
from dssync.agent.forkclient import ForkServerLostError
from dssync.agent.link import LinkHandlers, WorkerLink
from dssync.agent.report import Reporter
from dssync.agent.settings import Settings
from dssync.agent.supervisor import Supervisor, WorkerExit, WorkerProcess, WorkerSpec
from dssync.agent.verdict import Verdict
from dssync.control import messages as m
from dssync.control.replay import Part, parts_of
from dssync.control.view import Member
from dssync.control.viewlog import Entered, Point, records_in
from dssync.errors import ReplayError, UsageError

STOP_SECONDS = 1.0
THREADS = "OMP_NUM_THREADS"


@dataclass
class _Player:
    """One worker process of the log."""

    part: Part
    started: bool = False
    process: WorkerProcess | None = None
    link: WorkerLink | None = None
    held: list[str] = field(default_factory=list)
    """What it is told before it listens."""
    address: str = ""
    """Where it streams its state."""
    entries: int = 0
    """How often it has come in."""
    enters: Entered | None = None
    """It waits for this state."""
    given: int = 0
    gives: Point | None = None
    """It waits at this moment for joiners."""
    summed: set[tuple[int, int]] = field(default_factory=set)
    """Attempts that it has the result of."""
    played: bool = False
    let_go: bool = False
    ended: bool = False

    def tell(self, message: m.ToMemberBody) -> None:
        """Send a message, at once or when it listens: it does when it says hello."""
        self.held.append(m.TO_MEMBER.encode_text(message))
        self.flush()

    def flush(self) -> None:
        """Send what is held, if it listens."""
        if self.link is not None and self.entries:
            for body in self.held:
                self.link.control(body)
            self.held.clear()


class Replay:
    """A replay, from the file to a verdict.

    Args:
        settings: what ``dssync run --replay`` was told.
        reporter: takes log lines and metrics.

    Raises:
        UsageError: the log cannot be read or played.
    """

    def __init__(self, settings: Settings, reporter: Reporter) -> None:
        history = settings.history
        if history.replay is None:
            raise UsageError("a replay needs a view log: give --replay FILE")
        self._reporter = reporter
        self._file = history.replay
        try:
            with self._file.open("rb") as lines:
                parts = parts_of(records_in(lines, str(self._file)), history.until)
        except (OSError, ReplayError) as error:
            raise UsageError(f"--replay {self._file}: {error}") from None
        self._players = {key: _Player(part) for key, part in parts.items()}
        self._settings = _like(settings, parts)
        self._groups = {
            stage.communicator: stage.members
            for part in parts.values()
            for act in part.rounds
            for stage in act.assign.stages
        }
        self._supervisor = Supervisor(self._settings, self._exited)
        self._token = secrets.token_hex(16)
        self._failure = ""
        self._failed: tuple[WorkerExit, ...] = ()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Verdict:
        """Play to the end and return the verdict."""
        loop = asyncio.get_running_loop()
        for name in self._settings.supervision.signals:
            loop.add_signal_handler(getattr(signal, name), self._fail, f"it was stopped by {name}")
        values = self._settings.history.values
        if values is not None:
            values.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="dssync-replay-") as folder:
            for key, player in self._players.items():
                (Path(folder) / key).write_text("\n".join(player.part.lines))
            self._folder = Path(folder)
            try:
                self._start_who_has_no_donor()
                await self._over.wait()
            finally:
                await self._supervisor.stop(STOP_SECONDS)
        return self._verdict()

    def _verdict(self) -> Verdict:
        if self._failure:
            code = self._failed[0].returncode if self._failed else contract.EXIT_FAILED
            return Verdict(contract.VERDICT_USER_ERROR, self._failure, code, self._failed)
        rounds = [act.assign.round for each in self._players.values() for act in each.part.rounds]
        last = max(rounds, default=-1)
        self._reporter.log("replayed", members=len(self._players), round=last)
        return Verdict(contract.VERDICT_DONE, f"replayed up to round {last}", 0)

    # --- workers ----------------------------------------------------------------------------

    def _start_who_has_no_donor(self) -> None:
        for key, player in self._players.items():
            if player.part.acts and player.part.entries[0].source not in self._players:
                self._start(key, player)

    def _start(self, key: str, player: _Player) -> None:
        player.started = True
        task = asyncio.ensure_future(self._open(key, player))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _open(self, key: str, player: _Player) -> None:
        member, variables = Member.parse(key), player.part.life.environment
        try:
            process = await self._supervisor.start(
                WorkerSpec(member.local_rank, variables=variables)
            )
        except (OSError, ForkServerLostError) as error:
            self._fail(f"the process of {key} could not be started: {error}")
            return
        player.process = process
        handlers = LinkHandlers(
            on_control=lambda body: self._heard(key, player, body),
            on_metrics=lambda delta: None,
            on_broken=lambda reason: self._fail(f"the link of {key} broke: {reason}"),
        )
        player.link = await WorkerLink.open(process.link, handlers)
        player.link.set_up(self._setup(key, player))
        self._reporter.log("started", member=key, pid=process.pid)

    def _setup(self, key: str, player: _Player) -> dict[str, object]:
        sync, control = player.part.life.sync, self._settings.control
        return {
            "member": key,
            "mode": sync.mode,
            "group_size": sync.group_size,
            "every": sync.every,
            "commit": sync.commit,
            "seed": sync.seed,
            "backend": "gloo",
            "host": control.address,
            "interface": control.interface,
            "workers": player.part.life.workers,
            "token": self._token,
            "replay": str(self._folder / key),
            "replay_out": str(self._settings.history.values or ""),
        }

    def _exited(self, exit_: WorkerExit) -> None:
        for key, player in self._players.items():
            if player.process is exit_.worker:
                player.ended = True
                if exit_.returncode != 0 or not player.played:
                    self._failed = (*self._failed, exit_)
                    self._fail(f"{key} ended with {exit_.returncode} before its part did")
        if all(player.ended for player in self._players.values()):
            self._over.set()

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or reason
        self._over.set()

    # --- what they say ----------------------------------------------------------------------

    def _heard(self, key: str, player: _Player, body: str) -> None:
        match m.MEMBER.decode(body):
            case m.Enter(state_address=address):
                player.address = address
                player.enters = player.part.entries[player.entries]
                player.entries += 1
                player.flush()
            case m.Arrive():
                player.gives = player.part.points[player.given]
                player.given += 1
                self._start_joiners(key, player.gives)
            case m.Confirm(number, attempt):
                player.summed.add((number, attempt))
            case m.Leave():
                player.played = True
            case m.Blob(communicator) as blob:
                for mate in self._groups[communicator]:
                    if mate != key:
                        self._players[mate].tell(blob)
            case _:
                return
        self._lead_to_donors()
        self._let_go()

    def _start_joiners(self, donor: str, point: Point) -> None:
        for key, player in self._players.items():
            first = player.part.entries[0]
            if not player.started and (first.source, first.taken) == (donor, point):
                self._start(key, player)

    def _lead_to_donors(self) -> None:
        for player in self._players.values():
            entry = player.enters
            donor = self._players.get(entry.source) if entry is not None else None
            if entry is not None and donor is not None and donor.gives == entry.taken:
                player.enters = None
                player.tell(m.Fetch(entry.source, donor.address))

    def _let_go(self) -> None:
        """End those who have played their part and whose mates have their values."""
        for key, player in self._players.items():
            if player.played and not player.let_go and self._mates_are_done(key, player.part):
                player.let_go = True
                player.tell(m.Completed(0))

    def _mates_are_done(self, key: str, part: Part) -> bool:
        summed = [act for act in part.rounds if act.members]
        if not summed:
            return True
        last = summed[-1]
        return all(last.name in self._players[mate].summed for mate in last.members - {key})


def _like(settings: Settings, parts: Mapping[str, Part]) -> Settings:
    """Return settings under which torch adds up as it did: threads are chosen on import."""
    told = dict(each.split("=", 1) for part in parts.values() for each in part.life.environment)
    environment = {k: v for k, v in settings.environment.items() if k != THREADS}
    if THREADS in told:
        environment[THREADS] = told[THREADS]
    return replace(settings, environment=environment)
