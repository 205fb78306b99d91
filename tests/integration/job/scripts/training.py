"""Adds deltas that the test can predict, and reports every round.

The delta of step ``s`` at the member with number ``k`` (slot and local rank) is
``(1 + k) * cos(s + i)`` for element ``i``: no gradient, so that numpy can follow.
"""

import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from voice import LIFE, RANK, SLOT, SPEC, announce, say

import dssync

torch.set_num_threads(1)
NUMBER = SLOT * 16 + RANK
SHOWN = 4
PACE = Path(SPEC["pace_file"]) if "pace_file" in SPEC else None
"""While it exists, steps are slow, so that the data outlasts what is done to the job."""
talks_every = SPEC.get("talks_every", 1)
"""Announces every so many steps, and reports every so many rounds."""


class Probe:
    """Registered state: announces when a donor reads it and when a joiner takes it over."""

    def __init__(self) -> None:
        self.born_at = f"{SLOT}.{RANK}.{LIFE}"

    def state_dict(self) -> dict[str, object]:
        if steps and talks_every == 1:
            announce("donate", steps=steps)
        return {"from": f"{SLOT}.{RANK}.{LIFE}", "steps": steps, "padding": padding}

    def load_state_dict(self, state: dict[str, object]) -> None:
        global steps
        steps = int(str(state["steps"]))
        if talks_every == 1:
            announce("load", donor=state["from"], steps=steps)


def report(outcome: dssync.Outcome) -> None:
    if outcome.round % talks_every:
        return
    values = {name: p.detach().flatten()[:SHOWN].tolist() for name, p in model.named_parameters()}
    say("round", at=time.monotonic(), steps=steps, own=sync.member, values=values, **vars(outcome))


steps = 0
padding = torch.zeros(SPEC.get("padding_bytes", 0), dtype=torch.uint8)
model = torch.nn.ParameterDict(
    {
        "w32": torch.nn.Parameter(torch.zeros(SPEC.get("elements", 16))),
        "w64": torch.nn.Parameter(torch.zeros(8, dtype=torch.float64)),
    }
)
if NUMBER:  # only the first member's initial values may survive
    torch.nn.init.constant_(model["w32"], 99.0)
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
sync = dssync.GroupSync(model, optimizer, **SPEC.get("sync", {}))
sync.on_round(report)
sync.register("probe", Probe())
dataset = range(SPEC.get("samples", 1 << 20))
loader = DataLoader(dataset, batch_sampler=sync.batches(dataset, batch_size=1))
if SPEC.get("comes_late"):
    announce("late")
say("ready", member=sync.member)
for batch in sync.run(loader, epochs=SPEC.get("epochs", 1)):
    steps += 1
    with torch.no_grad():
        for parameter in model.values():
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter += ((1 + NUMBER) * torch.cos(steps + index)).to(parameter.dtype)
    if SPEC.get("spoil") == [RANK, steps]:
        model["w32"].data[1] = float("nan")
    if PACE is not None and PACE.exists():
        time.sleep(SPEC["pace_seconds"])
    if SPEC.get("flush_at") == steps:
        sync.flush()
    if steps % talks_every == 0:
        announce("step", step=steps, batch=int(batch[0]))
    if SPEC.get("last_step") == steps:
        sync.stop()
    sync.step()
say("over", steps=steps, bits=[p.detach().numpy().tobytes().hex() for p in model.values()])
