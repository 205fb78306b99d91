"""One model with everything that averaging must tell apart; reports it all after each round."""

import time

import torch
from torch.utils.data import DataLoader
from voice import LIFE, RANK, SLOT, SPEC, announce, say

import dssync

torch.set_num_threads(1)


class Model(torch.nn.Module):
    """Odd parameters beside ordinary ones."""

    def __init__(self) -> None:
        super().__init__()
        self.single = torch.nn.Parameter(torch.zeros(4))
        self.wide = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
        self.narrow = torch.nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
        self.frozen = torch.nn.Parameter(torch.full((4,), 3.0), requires_grad=False)
        self.scalar = torch.nn.Parameter(torch.tensor(0.0))
        self.shared = self.single
        self.convolution = torch.nn.Conv2d(2, 2, 2).to(memory_format=torch.channels_last)
        self.norm = torch.nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pixels = x.reshape(1, 2, 2, 1).repeat(2, 1, 1, 2)
        out = self.norm(x.repeat(3, 1)) * self.shared + self.scalar
        return out.sum() + self.convolution(pixels).sum() + (self.wide + self.narrow).sum()


def report(outcome: dssync.Outcome) -> None:
    state = {name: t.double().flatten().tolist() for name, t in model.state_dict().items()}
    velocity = [s["momentum_buffer"].double().flatten().tolist() for s in optimizer.state.values()]
    say(
        "round",
        at=time.monotonic(),
        steps=steps,
        own=sync.member,
        state=state,
        velocity=velocity,
        scheduler=scheduler.last_epoch,
        scale=scaler.state_dict()["scale"],
        ema=int(ema.n_averaged),
        **vars(outcome),
    )


steps = 0
model = Model()
optimizer = torch.optim.SGD(
    [p for p in model.parameters() if p.requires_grad], lr=0.01, momentum=0.9
)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0 if RANK else 2048.0)
ema = torch.optim.swa_utils.AveragedModel(model)
sync = dssync.GroupSync(model, optimizer, **SPEC.get("sync", {}))
sync.on_round(report)
sync.register("scheduler", scheduler)
sync.register("scaler", scaler)
sync.register("ema", ema)
dataset = [torch.full((4,), float(i)) for i in range(SPEC.get("samples", 4096))]
loader = DataLoader(dataset, batch_sampler=sync.batches(dataset, batch_size=1), num_workers=0)
accumulate = SPEC.get("accumulate", 1)
say("ready", member=sync.member)
for number, batch in enumerate(sync.run(loader)):
    loss = model((batch[0] + torch.arange(4)) / 100 + SLOT + RANK)
    loss.backward()
    if (number + 1) % accumulate:
        continue
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    ema.update_parameters(model)
    steps += 1
    before = {n: t.double().flatten().tolist() for n, t in model.state_dict().items()}
    velocity = [s["momentum_buffer"].double().flatten().tolist() for s in optimizer.state.values()]
    announce("step", step=steps, own=sync.member, before=before, velocity=velocity)
    if (LIFE, steps) == (1, 3):
        sync.stop()
    sync.step()
say("over", steps=steps)
