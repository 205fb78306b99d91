"""Asks other launchers whether they are linked to a coordinator, and tells them of a new one."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable

from dssync.control.address import endpoint_of
from dssync.control.peers import PEER, Answer, Ask, Elected
from dssync.control.takeover import Launcher
from dssync.control.transport import FrameProtocol, connect
from dssync.errors import DssyncError, ProtocolError

CONNECT_SECONDS = 1.0


class Peers:
    """Connections to other launchers, kept while they are of use.

    Args:
        uid: of this launcher.
        token: the job's shared secret.
        on_answer: called with each answer.
    """

    def __init__(self, uid: str, token: bytes, on_answer: Callable[[Answer], None]) -> None:
        self._uid = uid
        self._token = token
        self._on_answer = on_answer
        self._open: dict[str, FrameProtocol] = {}
        self._opening: dict[str, asyncio.Task[None]] = {}

    def ask(self, launchers: Iterable[Launcher]) -> None:
        """Ask each of them; answers come as they come."""
        self._tell(launchers, PEER.encode(Ask(self._uid)))

    def announce(self, launchers: Iterable[Launcher], news: Elected) -> None:
        """Tell each of them of a new coordinator."""
        self._tell(launchers, PEER.encode(news))

    def hang_up(self) -> None:
        """End all connections."""
        for task in self._opening.values():
            task.cancel()
        self._opening.clear()
        for connection in list(self._open.values()):
            connection.close()
        self._open.clear()

    def _tell(self, launchers: Iterable[Launcher], frame: bytes) -> None:
        for each in launchers:
            known = self._open.get(each.uid)
            if known is not None:
                known.send(frame)
            elif each.uid not in self._opening and each.address:
                self._opening[each.uid] = asyncio.create_task(self._connect(each, frame))

    async def _connect(self, launcher: Launcher, frame: bytes) -> None:
        def answered(payload: bytes) -> None:
            answer = PEER.decode(payload)
            if not isinstance(answer, Answer):
                raise ProtocolError(f"launcher {launcher.address} answers with {answer!r}")
            self._on_answer(answer)

        def lost() -> None:
            self._open.pop(launcher.uid, None)

        with contextlib.suppress(OSError, DssyncError):
            host, port = endpoint_of(launcher.address)
            connection = await connect(host, port, self._token, answered, lost, CONNECT_SECONDS)
            self._open[launcher.uid] = connection
            connection.send(frame)
        self._opening.pop(launcher.uid, None)
