"""Workers of one script under a real supervisor, and what they say on their links."""

import asyncio

from dssync.agent.settings import Settings
from dssync.agent.supervisor import Supervisor, WorkerExit, WorkerProcess, WorkerSpec


class Crew:
    """Workers of one script under a real supervisor."""

    def __init__(self, settings: Settings, preload: tuple[str, ...] = ()) -> None:
        self.exits: asyncio.Queue[WorkerExit] = asyncio.Queue()
        self.supervisor = Supervisor(settings, self.exits.put_nowait, preload)
        self._stopped = False

    async def start(self, local_rank: int = 0, restarts: int = 0) -> WorkerProcess:
        return await self.supervisor.start(WorkerSpec(local_rank, restarts))

    async def run(self, local_rank: int = 0) -> WorkerExit:
        (await self.start(local_rank)).link.close()
        return await self.exits.get()

    async def stop(self, grace_seconds: float = 0.0) -> None:
        if not self._stopped:
            self._stopped = True
            await self.supervisor.stop(grace_seconds)


async def hear(worker: WorkerProcess) -> str:
    """Return what a worker says on its link; empty at its end."""
    return (await asyncio.get_running_loop().sock_recv(worker.link, 1 << 16)).decode()


async def tell(worker: WorkerProcess, text: str) -> None:
    await asyncio.get_running_loop().sock_sendall(worker.link, text.encode())
