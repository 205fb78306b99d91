"""Random fates of one job: whatever happens, the plan converges and never lies."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st

from dssync_operator.job import digest
from dssync_operator.plan import Plan
from dssync_operator.record import View
from ground.models import BAD_TEMPLATE, OTHER_TEMPLATE, TEMPLATE
from ground.world import CrashError, World

MAX_REPLICAS = 5
ENDS = [
    (0, "Done"),
    (0, "Drained"),
    (1, "UserError"),
    (42, "UserError"),
    (137, ""),
    (94, "Fenced"),
    (0, ""),
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("look"), st.none() | st.integers(0, 8)),
        st.tuples(st.sampled_from(["run", "go", "kill", "fade", "vanish"]), st.integers(0, 20)),
        st.tuples(st.just("end"), st.tuples(st.integers(0, 20), st.sampled_from(ENDS))),
        st.tuples(st.just("replicas"), st.integers(1, MAX_REPLICAS)),
        st.tuples(st.just("suspend"), st.booleans()),
        st.tuples(st.just("template"), st.sampled_from([TEMPLATE, OTHER_TEMPLATE, BAD_TEMPLATE])),
        st.tuples(st.just("haste"), st.sampled_from([OTHER_TEMPLATE, BAD_TEMPLATE])),
        st.tuples(st.just("view"), st.integers(1, 9)),
        st.tuples(st.just("word"), st.sampled_from(["completes", "is lost", "loses the template"])),
        st.tuples(st.just("wait"), st.sampled_from([1.0, 15.0, 100.0, 4000.0])),
    ),
    min_size=10,  # else most are too short for a pod to run, be asked to go and be looked at
    max_size=40,
)
RULES = [
    {"name": "fatal", "action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}},
    {"name": "spare", "action": "Ignore", "onExitCodes": {"operator": "In", "values": [42]}},
    {
        "name": "move",
        "action": "ReplaceWorker",
        "onExitCodes": {"operator": "NotIn", "values": [1]},
    },
]
SPECS = st.fixed_dictionaries(
    {
        "replicas": st.integers(1, MAX_REPLICAS),
        "elastic": st.just({"minReplicas": 1, "maxReplicas": MAX_REPLICAS})
        | st.just({"minReplicas": 1, "stabilizationSeconds": 0})
        | st.just({"minReplicas": 2, "belowMinTimeoutSeconds": 50}),
        "failurePolicy": st.fixed_dictionaries(
            {
                "backoffLimit": st.sampled_from([1, 6, 1000]),
                "rules": st.lists(st.sampled_from(RULES), max_size=1),
            }
        ),
        "successPolicy": st.sampled_from(["All", "Any", "Coordinator"]),
        "rendezvous": st.sampled_from([{}, {"mode": "Static"}]),
        "cleanPodPolicy": st.sampled_from(["None", "Running", "All"]),
    },
    optional={
        "startupDeadlineSeconds": st.just(90),
        "activeDeadlineSeconds": st.just(300),
        "ttlSecondsAfterFinished": st.just(60),
        "template": st.just(BAD_TEMPLATE),
    },
)


PAIR = {
    "replicas": 2,
    "elastic": {"minReplicas": 1},
    "failurePolicy": {"backoffLimit": 6},
    "rendezvous": {},
    "cleanPodPolicy": "None",
}
LOST = [
    *[("look", None), ("suspend", True), ("look", None), ("look", None)],
    *[("template", OTHER_TEMPLATE), ("look", None), ("suspend", False), ("look", None)],
    *[("run", 0), ("word", "loses the template"), ("template", TEMPLATE), ("vanish", 0)],
]
"""The Service goes with the template of pods that run; the job's own is another one by then."""


# Half a minute alone; hypothesis would take a timeout for a flaky example.
@pytest.mark.timeout(900)
@settings(max_examples=2000, deadline=None)
@given(SPECS, STEPS)
@example(PAIR, LOST)
def test_any_sequence_of_fates_converges_and_never_lies(
    spec: dict[str, Any], steps: list[tuple[str, Any]]
) -> None:
    world = World(dict(spec))
    verdict = None
    for step in steps:
        if not world.deleted:
            take(world, *step)
            verdict = check(world, verdict)
    calm(world)
    check(world, verdict)


def take(world: World, what: str, argument: Any) -> None:
    match what:
        case "look":
            look(world, argument)
        case "wait":
            world.now += argument
        case "replicas" | "suspend" | "template":
            world.edit(**{what: argument})
        case "view":
            if world.wanted is not None:
                world.view = View(1, argument, 1, 1)
        case "haste":
            hurry(world, argument)
        case "word":
            {"is lost": world.lose_lease, "completes": world.complete}.get(
                argument, world.lose_template
            )()
        case "end":
            index, (code, verdict) = argument
            for name in nth(world, index):
                world.end(name, code, verdict)
        case _:
            for name in nth(world, argument):
                fates(world)[what](name)


def fates(world: World) -> dict[str, Callable[[str], None]]:
    return {
        "run": world.run,
        "go": world.ask_to_go,
        "kill": world.kill,
        "fade": world.fade,
        "vanish": world.vanish,
    }


def hurry(world: World, template: dict[str, Any]) -> None:
    """Edit the template, and go on before the pods of the old one are gone."""
    world.edit(template=template, suspend=True)
    look(world, None)
    world.edit(suspend=False)


def nth(world: World, index: int) -> list[str]:
    names = sorted(world.pods)
    return [names[index % len(names)]] if names else []


def look(world: World, effects_before_crash: int | None) -> None:
    try:
        decided = world.look(effects_before_crash)
    except CrashError:
        return
    if needs_no_other_look(decided, world.now):
        before = world.status, dict(world.pods)
        again = world.look()
        assert (world.status, world.pods) == before
        assert again.create == again.delete == ()


def needs_no_other_look(decided: Plan, now: float) -> bool:
    """Tell whether no event and no alarm would bring the operator back to the job.

    Its own status and the pods that it made tell it nothing new; pods that it deletes do, and so
    does the Lease.
    """
    if decided.wake_at is not None and decided.wake_at <= now:
        return False
    return not decided.delete and not decided.delete_job and decided.wanted is None


def check(world: World, before: tuple[str, str] | None) -> tuple[str, str] | None:
    status = world.parsed()
    assert len(world.live()) <= MAX_REPLICAS
    assert len({pod.slot for pod in world.live()}) == len(world.live())
    assert status.tally.total <= world.failures
    assert world.confirmed_late == []
    assert digest(BAD_TEMPLATE) not in world.made_of
    assert len({pod.template_hash for pod in world.pods.values()}) <= 1
    verdicts = [
        (kind, status.conditions[kind].reason)
        for kind in ("Complete", "Failed")
        if status.is_true(kind)
    ]
    assert len(verdicts) <= 1
    if before is not None:
        assert verdicts == [before]
    return verdicts[0] if verdicts else None


def start_over(world: World) -> None:
    """Follow the advice that comes with a template that is lost."""
    suspended = world.spec.get("suspend", False)
    world.edit(suspend=True)
    world.settle()
    for name in list(world.pods):
        world.vanish(name)
    world.settle()
    world.edit(suspend=suspended)


def calm(world: World) -> None:
    """No more faults: what is deleted goes, what is made runs, and time passes."""
    world.edit(template=TEMPLATE)
    world.settle()
    if "no pod is made" in world.parsed().conditions["Accepted"].message:
        start_over(world)
    for _ in range(6):
        world.settle()
        for pod in list(world.pods.values()):
            if pod.deleting:
                world.vanish(pod.name)
            else:
                world.run(pod.name)
        world.now += 400
    world.settle()
    if world.deleted:
        assert world.parsed().finished
        return
    status = world.parsed()
    if status.finished:
        assert "ttlSecondsAfterFinished" not in world.spec
        assert not world.live() or world.spec["cleanPodPolicy"] == "None"
        return
    suspended = world.spec.get("suspend", False)
    accepted = status.conditions["Accepted"]
    assert accepted.true or (not suspended and accepted.reason == "TemplateChangedWhileRunning")
    wanted = 0 if suspended else world.spec["replicas"]
    done = 0 if suspended else len(status.tally.done)
    assert len(world.live()) == max(0, wanted - done)
    assert status.display["replicas"] == len(world.live())
