"""The election's shell when what it is to do fails."""

import asyncio

from dssync.agent.arbiters import StaticArbiter
from dssync.agent.campaign import Campaign
from dssync.agent.peers import Peers
from dssync.control import ballots as b
from dssync.control.ballots import ElectionSettings
from dssync.control.election import Election
from dssync.control.takeover import Launcher

PATIENCE_SECONDS = 10.0
ME = Launcher(0, "me", "", "")


async def test_an_election_whose_shell_fails_says_so() -> None:
    failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    election = Election(ME, ElectionSettings(), asyncio.get_running_loop().time())

    def perform(effect: b.Effect) -> None:
        if isinstance(effect, b.Lead):
            raise KeyError("a fault")

    peers = Peers("me", b"", lambda answer: None)
    arbiter = StaticArbiter("127.0.0.1", 0, is_host=True)
    campaign = Campaign(election, arbiter, peers, perform, failed.set_result)

    assert "KeyError('a fault')" in await asyncio.wait_for(failed, PATIENCE_SECONDS)
    await campaign.close()
