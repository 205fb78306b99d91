"""A coordinator as one launcher hosts it, in a process of its own, without workers.

Prints its address; ends when its standard input does. ``--profile FILE`` tells where time goes.
"""

import asyncio
import cProfile
import sys

from dssync.agent.door import Door
from dssync.agent.host import CoordinatorHost
from dssync.control.coordinator import Coordinator
from dssync.control.events import ControlSettings
from dssync.control.requests import Answer, Refused, Request

TOKEN = b"of the benchmark"


async def serve(members: int) -> None:
    """Coordinate a job of so many launchers until standard input ends."""

    async def respond(request: Request) -> Answer:
        return Refused("a benchmark answers nothing")

    settings = ControlSettings(desired=members, minimum=members, lease_seconds=60.0)
    door = Door(respond)
    await door.open("127.0.0.1", 0, TOKEN)
    host = door.launchers = CoordinatorHost(Coordinator(1, settings), lambda note: None)
    host.start()
    print(door.address, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await door.close()
    await host.close()


if __name__ == "__main__":
    if "--profile" in sys.argv:
        profile = cProfile.Profile()
        profile.runcall(asyncio.run, serve(int(sys.argv[1])))
        profile.dump_stats(sys.argv[sys.argv.index("--profile") + 1])
    else:
        asyncio.run(serve(int(sys.argv[1])))
