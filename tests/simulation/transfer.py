"""State on its way from a donor to a joiner."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dssync.control import messages as m

if TYPE_CHECKING:
    from simulation.fabric import Numbers
    from simulation.run import Simulation
    from simulation.worker import Worker

TRANSFER_TIMEOUT_SECONDS = 2.0


class Transfers:
    """Streams the state of donors to joiners, as far as both live."""

    def __init__(self, world: Simulation) -> None:
        self._world = world

    def begin(self, joiner: Worker, donor_key: str) -> None:
        """Fetch from a donor."""
        random, donor = self._world.random, self._world.find(donor_key)
        delay = random.uniform(0.005, 0.05)
        if donor is None or donor.exit_code is not None:
            joiner.later(delay, lambda: _fail(joiner, donor_key))
            return
        donor.transfers += 1
        fetch = joiner.fetching

        def copied() -> None:
            copy, final = (list(donor.training.values), donor.training.support), donor.final_state
            joiner.later(random.uniform(0.005, 0.2), lambda: ended(copy, final))

        def ended(copy: tuple[list[float], int], final: bool) -> None:
            if joiner.fetching is not fetch:
                return
            if donor.alive:
                _load(joiner, donor_key, copy, final=final)
            else:
                _fail(joiner, donor_key)

        donor.later(delay, copied)
        self._watch(joiner, donor)

    def _watch(self, joiner: Worker, donor: Worker) -> None:
        """Look after both ends until the transfer is over."""
        scheduler, fetch = self._world.scheduler, joiner.fetching
        started = scheduler.now

        def look() -> None:
            over = joiner.fetching is not fetch or joiner.state.started or not joiner.alive
            late = scheduler.now - started > TRANSFER_TIMEOUT_SECONDS
            if not (over or late) and donor.alive:
                scheduler.later(0.1, look)
                return
            donor.transfers -= 1
            if joiner.fetching is fetch and not joiner.state.started:
                _fail(joiner, donor.key)

        scheduler.later(0.1, look)


def _load(joiner: Worker, donor: str, copy: tuple[Numbers, int], *, final: bool) -> None:
    """A transfer has ended well."""
    if joiner.fetching is None or joiner.fetching.donor != donor or joiner.state.started:
        return
    joiner.training.values, joiner.training.support = list(copy[0]), copy[1]
    joiner.final_state = final
    joiner.say(m.Loaded(donor))


def _fail(joiner: Worker, donor: str) -> None:
    """A transfer has ended early."""
    if joiner.fetching is not None and joiner.fetching.donor == donor:
        joiner.say(m.FetchFailed(donor, "connection lost"))
