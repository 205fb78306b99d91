"""Random fates of one job: whatever happens, the plan converges and never lies."""

from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from ground.models import CrashError, World

MAX_REPLICAS = 5
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.none() | st.integers(0, 8)),
        st.tuples(st.sampled_from(["run", "go", "fade", "vanish"]), st.integers(0, 20)),
        st.tuples(
            st.just("end"),
            st.tuples(
                st.integers(0, 20),
                st.sampled_from(
                    [(0, "Done"), (0, "Drained"), (1, "UserError"), (137, ""), (94, "Fenced")]
                ),
            ),
        ),
        st.tuples(st.just("replicas"), st.integers(1, MAX_REPLICAS)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 15.0, 100.0, 4000.0])),
    ),
    max_size=40,
)
SPECS = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, MAX_REPLICAS),
        "elastic": st.just({"minReplicas": 1, "maxReplicas": MAX_REPLICAS})
        | st.just({"minReplicas": 1, "stabilizationSeconds": 0}),
        "failurePolicy": st.fixed_dictionaries({"backoffLimit": st.sampled_from([1, 6, 1000])}),
        "successPolicy": st.sampled_from(["All", "Any"]),
        "rendezvous": st.sampled_from([{}, {"mode": "Static"}]),
    }
)


# Half a minute alone; hypothesis would take a timeout for a flaky example.
@pytest.mark.timeout(600)
@settings(max_examples=2000, deadline=None)
@given(SPECS, STEPS)
def test_any_sequence_of_fates_converges_and_never_lies(
    spec: dict[str, Any], steps: list[tuple[str, Any]]
) -> None:
    world = World(dict(spec))
    verdict = None
    for step in steps:
        take(world, *step)
        verdict = check(world, verdict)
    calm(world)
    check(world, verdict)


def take(world: World, what: str, argument: Any) -> None:
    match what:
        case "look":
            try:
                world.look(argument)
            except CrashError:
                return
        case "wait":
            world.now += argument
        case "replicas" | "suspend":
            world.edit(**{what: argument})
        case "end":
            index, (code, verdict) = argument
            for name in nth(world, index):
                world.end(name, code, verdict)
        case _:
            fates = {"go": world.ask_to_go, "fade": world.fade, "vanish": world.vanish}
            for name in nth(world, argument):
                fates.get(what, world.run)(name)


def nth(world: World, index: int) -> list[str]:
    names = sorted(world.pods)
    return [names[index % len(names)]] if names else []


def check(world: World, before: tuple[str, str] | None) -> tuple[str, str] | None:
    status = world.parsed()
    assert len(world.live()) <= MAX_REPLICAS
    assert len({pod.slot for pod in world.live()}) == len(world.live())
    assert status.tally.total <= world.failures
    assert world.confirmed_late == []
    verdicts = [
        (kind, status.conditions[kind].reason)
        for kind in ("Complete", "Failed")
        if status.is_true(kind)
    ]
    assert len(verdicts) <= 1
    if before is not None:
        assert verdicts == [before]
    return verdicts[0] if verdicts else None


def calm(world: World) -> None:
    """No more faults: what is deleted goes, what is made runs, and time passes."""
    for _ in range(6):
        world.settle()
        for pod in list(world.pods.values()):
            if pod.deleting:
                world.vanish(pod.name)
            else:
                world.run(pod.name)
        world.now += 400
    world.settle()
    status = world.parsed()
    if status.finished:
        return
    wanted = 0 if world.spec.get("suspend") else world.spec["replicas"]
    done = 0 if world.spec.get("suspend") else len(status.tally.done)
    assert len(world.live()) == max(0, wanted - done)
    assert status.display["replicas"] == len(world.live())
