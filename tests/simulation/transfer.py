"""State on its way from a donor to a joiner."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
            joiner.later(delay, lambda: joiner.fetch_failed(donor_key))
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
                joiner.fetched(donor_key, copy, final)
            else:
                joiner.fetch_failed(donor_key)

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
                joiner.fetch_failed(donor.key)

        scheduler.later(0.1, look)
