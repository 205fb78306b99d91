"""What is averaged, what stays local, and what a joiner gets."""

import numpy as np
import pytest

from integration.job.harness import Job, Line, matching
from integration.job.predict import by_round

pytestmark = pytest.mark.timeout(240)

AVERAGED = {
    "single": 1e-6,
    "wide": 1e-12,
    "narrow": 2**-8,
    "scalar": 1e-6,
    "convolution.weight": 1e-6,
    "convolution.bias": 1e-6,
    "norm.weight": 1e-6,
    "norm.running_mean": 1e-6,
    "norm.running_var": 1e-6,
}
"""Tensors that a round averages, and the precision of their type."""


def befores(job: Job) -> dict[tuple[str, int], Line]:
    """Return what each member held before the round of each step."""
    return {(line["own"], line["step"]): line for line in job.board.select(matching(event="step"))}


def trained(job: Job, kind: str = "train") -> list[dict[str, Line]]:
    """Return the reports of rounds in which every member trained before."""
    known = befores(job)
    rounds = by_round([line for line in job.board.rounds(kind=kind, result="committed")])
    previous: dict[str, int] = {}
    found = []
    for reports in rounds.values():
        fresh = {own: line for own, line in reports.items() if line["steps"] > previous.get(own, 0)}
        previous.update({own: line["steps"] for own, line in reports.items()})
        members = {key for line in reports.values() for key in line["members"]}
        if members == set(fresh) and all((own, r["steps"]) in known for own, r in fresh.items()):
            found.append(reports)
    return found


def test_each_kind_of_tensor_is_averaged_or_left_alone(job: Job) -> None:
    launcher = job.standalone(4, script="mixed.py", samples=66, sync={"group_size": 2})

    assert launcher.end() == 0

    known, rounds = befores(job), trained(job)
    assert len(rounds) > 5
    for reports in rounds:
        for line in reports.values():
            mates = [known[own, reports[own]["steps"]]["before"] for own in line["members"]]
            mine = known[line["own"], line["steps"]]
            for name, precision in AVERAGED.items():
                mean = np.mean([mate[name] for mate in mates], axis=0)
                np.testing.assert_allclose(
                    line["state"][name], mean, rtol=precision, atol=precision * 10, err_msg=name
                )
            assert line["state"]["frozen"] == [3.0] * 4
            assert line["state"]["shared"] == line["state"]["single"]
            assert (
                line["state"]["norm.num_batches_tracked"]
                == mine["before"]["norm.num_batches_tracked"]
            )
            assert line["velocity"] == mine["velocity"]
    assert "register('scheduler'): StepLR counts this worker's own steps" in launcher.text
    assert len({str(line["state"]) for line in rounds[-1].values()}) > 1  # groups, not everybody


def assert_is_mean(velocity: list[list[float]], of: list[list[list[float]]]) -> None:
    """Compare the momentum of each parameter, the third of which has few digits."""
    for number, (own, *others) in enumerate(zip(velocity, *of, strict=True)):
        precision = 2**-8 if number == 2 else 1e-5
        mean = np.mean(others, axis=0)
        np.testing.assert_allclose(own, mean, rtol=precision, atol=precision * 10)


def test_a_flush_averages_the_optimizers_state(job: Job) -> None:
    launcher = job.standalone(4, script="mixed.py", samples=66, sync={"group_size": 2})

    assert launcher.end() == 0

    last: dict[str, Line] = {line["own"]: line for line in befores(job).values()}
    finals = job.board.rounds(kind="final")
    assert len(finals) == 4
    for line in finals:
        assert_is_mean(line["velocity"], [each["velocity"] for each in last.values()])


def test_a_flush_averages_what_was_loaded_with_what_was_trained(job: Job) -> None:
    """The convolution's momentum lies otherwise in memory where it was loaded."""
    launcher = job.standalone(3, "--max-restarts", "1", script="mixed.py", sync={"group_size": 2})
    victim = job.board.wait(lambda line: line["event"] == "round" and line["steps"] == 12)[0]

    job.kill(victim["pid"])  # the next life stops the job in its third step

    assert launcher.end() == 0
    last = {line["rank"]: line for line in job.board.select(matching(event="step"))}
    finals = job.board.rounds(kind="final")
    assert sorted(line["life"] for line in finals) == [0, 0, 1]
    for line in finals:
        assert_is_mean(line["velocity"], [each["velocity"] for each in last.values()])


def test_a_job_may_average_the_optimizers_state_in_every_round(job: Job) -> None:
    flags = ("--average-optimizer-state", "1")
    launcher = job.standalone(4, *flags, script="mixed.py", samples=66, sync={"group_size": 2})

    assert launcher.end() == 0

    known, rounds = befores(job), trained(job)
    # The first rounds are frozen before everybody has told what there is to average.
    assert len(rounds[4:]) > 5
    for reports in rounds[4:]:
        for line in reports.values():
            mates = [known[own, reports[own]["steps"]]["velocity"] for own in line["members"]]
            assert_is_mean(line["velocity"], mates)


def test_accumulated_gradients_count_their_batches(job: Job) -> None:
    """37 batches among two members in steps of three: some are left over at the end."""
    launcher = job.standalone(2, script="mixed.py", samples=37, accumulate=3)

    assert launcher.end() == 0

    assert "committed=37 total=37 repeated=0" in launcher.text


def test_a_joiner_becomes_its_donor(job: Job) -> None:
    job.standalone(3, "--max-restarts", "1", script="mixed.py", sync={"group_size": 2})
    victim = job.board.wait(lambda line: line["event"] == "round" and line["steps"] == 12)[0]

    job.kill(victim["pid"])

    joined = job.board.wait(matching(event="round", slot=0, rank=victim["rank"], life=1))[0]
    # The donor may say later than the joiner what it gave away.
    same = matching(
        event="round", life=0, scheduler=joined["scheduler"], velocity=joined["velocity"]
    )
    donor = job.board.wait(same)[0]
    assert joined["scheduler"] >= 12
    assert joined["ema"] == donor["ema"]
    assert joined["scale"] == donor["scale"]
    assert joined["state"]["norm.num_batches_tracked"] == donor["state"]["norm.num_batches_tracked"]
