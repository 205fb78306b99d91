"""A checkpoint is whole or refused; a job goes on from it as if nothing had happened."""

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import dssync
from dssync.errors import UsageError
from dssync.worker import checkpoint
from dssync.worker.saver import checkpoint_of
from dssync.worker.tree import pack
from unit.worker.lives import BATCH, EPOCHS, SIZE, Run, Steps


def folders(path: Path) -> list[str]:
    return [each.name for each in checkpoint.published(path)]


@pytest.mark.parametrize("kind", ["consensus", "member"])
def test_a_resumed_run_has_the_bits_of_one_that_was_never_interrupted(
    tmp_path: Path, kind: str
) -> None:
    saves = dssync.Checkpoint(tmp_path, every_steps=10, kind=kind)  # type: ignore[arg-type]
    undisturbed = Run(None).train()

    first = Run(saves).train(until=lambda step: step == 15)
    count = checkpoint.read(tmp_path / "checkpoint-000001").state["steps"]["count"]
    second = Run(saves).train()

    assert second.steps.count == undisturbed.steps.count
    assert torch.equal(second.model[0].weight, undisturbed.model[0].weight)
    lost = first.seen.total() - BATCH * count
    assert (first.seen + second.seen).total() == EPOCHS * SIZE + lost
    assert 0 <= lost <= 10 * BATCH


class Parts:
    """A life with a scheduler, a scaler and an averaged model."""

    def __init__(self, path: Path, scale: float) -> None:
        model = torch.nn.Sequential(torch.nn.Linear(1, 3), torch.nn.BatchNorm1d(3))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        self.parts = {
            "model": model,
            "optimizer": optimizer,
            "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 5),
            "scaler": torch.amp.GradScaler("cpu", init_scale=scale),
            "ema": torch.optim.swa_utils.AveragedModel(model),
        }
        self.drawn = torch.zeros(1)
        sync = dssync.GroupSync(model, optimizer, checkpoint=path)
        for name in ("scheduler", "scaler", "ema"):
            sync.register(name, self.parts[name])
        batches = sync.batches(range(SIZE), BATCH)
        for batch in sync.run(DataLoader(range(SIZE), batch_sampler=batches)):  # type: ignore[arg-type]
            model(batch.float().unsqueeze(1)).sum().backward()
            optimizer.step()
            self.parts["scheduler"].step()
            self.parts["ema"].update_parameters(model)
            sync.step()
        self.drawn = torch.rand(1)
        sync.close()

    def state(self) -> list[torch.Tensor | str]:
        tensors: list[torch.Tensor] = []
        told = pack({name: each.state_dict() for name, each in self.parts.items()}, tensors)
        return [json.dumps(told), *tensors]


def test_a_resumed_life_has_all_that_was_registered_and_the_random_numbers(tmp_path: Path) -> None:
    torch.manual_seed(1)
    first = Parts(tmp_path, scale=2048.0)
    torch.manual_seed(2)
    again = Parts(tmp_path, scale=1024.0)

    assert '"scale"' in str(first.state()[0])
    for one, other in zip(first.state(), again.state(), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    assert torch.equal(first.drawn, again.drawn)


def test_the_model_loads_without_dssync(tmp_path: Path) -> None:
    run = Run(tmp_path).train()

    plain = torch.nn.Sequential(torch.nn.Linear(1, 8))
    plain.load_state_dict(load_file(tmp_path / "checkpoint-000001" / "model.safetensors"))

    assert torch.equal(plain[0].weight, run.model[0].weight)


def test_a_finished_job_resumes_into_an_empty_run(tmp_path: Path) -> None:
    first = Run(tmp_path).train()

    again = Run(tmp_path).train()

    assert not again.seen
    assert torch.equal(again.model[0].weight, first.model[0].weight)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / ".saving-left-by-a-crash").mkdir()
    for _ in range(5):  # each saves its end, all but the first without training
        Run(dssync.Checkpoint(tmp_path, keep=3)).train()

    assert folders(tmp_path) == ["checkpoint-000003", "checkpoint-000004", "checkpoint-000005"]
    assert [each.name for each in tmp_path.glob(".*")] == []


def test_what_another_writer_is_about_to_publish_is_left_to_it(tmp_path: Path) -> None:
    for name, written in (("checkpoint-000001", 10), (".saving-dead", 9), (".saving-live", 11)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (written, written))

    checkpoint.remove_old(tmp_path, keep=2)

    assert sorted(each.name for each in tmp_path.iterdir()) == [".saving-live", "checkpoint-000001"]


def test_names_of_all_folders_that_a_save_makes_are_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[Path] = set()
    to_disk = os.fsync

    def note(descriptor: int) -> None:
        synced.add(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        to_disk(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    Run(dssync.Checkpoint(tmp_path / "new" / "path")).train()

    assert {tmp_path, tmp_path / "new", tmp_path / "new" / "path"} <= synced


def test_a_save_that_fails_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    class Unsaved(Steps):
        def state_dict(self) -> dict[str, object]:
            return {"count": self.count, "wide": torch.zeros(8, dtype=torch.complex128)}

    run = Run(tmp_path)
    run.sync.register("unsaved", Unsaved())
    run.train()

    assert list(tmp_path.iterdir()) == []


def truncate(folder: Path) -> str:
    file = folder / "state.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    return "state.safetensors has .* it is truncated"


def alter(folder: Path) -> str:
    file = folder / "model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    return "model.safetensors was altered"


def alter_manifest(folder: Path) -> str:
    file = folder / "manifest.json"
    file.write_text(file.read_text().replace('"round": ', '"round": 1'))
    return "manifest.json was altered"


def lose_manifest(folder: Path) -> str:
    (folder / "manifest.json").unlink()
    return "is no whole checkpoint"


def write_nonsense(folder: Path) -> str:
    (folder / "manifest.json").write_text("[1, 2]")
    return "is no whole checkpoint"


def pickle(folder: Path) -> str:
    torch.save({"weight": torch.zeros(1)}, folder / "model.safetensors")
    return "model.safetensors"


def put_another_models(folder: Path) -> str:
    shutil.rmtree(folder)
    other = folder.parent / "other"
    Run(other, width=3).train()
    (other / "checkpoint-000001").rename(folder)
    return "is of another script: tensor '0.bias' is float32 .3,. in it, expected float32 .8,."


def put_two_groups(folder: Path) -> str:
    put(folder, lambda given: torch.optim.SGD([{"params": [p]} for p in given], momentum=0.9))
    return r"is of another script: .*\[\['0.weight'\], \['0.bias'\]\]"


def put_another_order(folder: Path) -> str:
    put(folder, lambda given: torch.optim.SGD(given[::-1], momentum=0.9))
    return r"is of another script: .*\[\['0.bias', '0.weight'\]\]"


def put_another_optimizer(folder: Path) -> str:
    put(folder, lambda given: torch.optim.Adagrad(given, lr=0.01))
    return r"is of another script: .*\['dampening', 'momentum'\]"


def put(
    folder: Path, optimized: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]
) -> None:
    """Put a whole checkpoint of another script in the place of one."""
    shutil.rmtree(folder)
    other = folder.parent / "other"
    Run(other, optimized=optimized).train()
    (other / "checkpoint-000001").rename(folder)


@pytest.mark.parametrize(
    "spoil",
    [
        put_two_groups,
        put_another_order,
        put_another_optimizer,
        truncate,
        alter,
        alter_manifest,
        lose_manifest,
        write_nonsense,
        pickle,
        put_another_models,
    ],
)
def test_what_is_not_whole_is_refused_by_name_and_the_one_before_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Callable[[Path], str]
) -> None:
    saves = dssync.Checkpoint(tmp_path, every_steps=1000, keep=5)
    first = Run(saves).train()
    shutil.copytree(tmp_path / "checkpoint-000001", tmp_path / "checkpoint-000002")
    why = spoil(tmp_path / "checkpoint-000002")
    capsys.readouterr()

    again = Run(saves).train()

    assert torch.equal(again.model[0].weight, first.model[0].weight)
    said = capsys.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("dssync: refused: ")]
    assert len(lines) == 1
    assert "checkpoint-000002" in lines[0]
    assert re.search(why, lines[0])
    assert f"resumed from {tmp_path / 'checkpoint-000001'}" in said


@pytest.mark.parametrize(
    ("other", "named"),
    [
        # As many batches as here, but not the same ones.
        ({"size": SIZE - 1}, "25 samples in batches of 2, shuffled"),
        ({"size": 39, "batch": 3}, "39 samples in batches of 3, shuffled"),
        ({"shuffle": False}, "26 samples in batches of 2, in order"),
        ({"batch": 1}, "26 samples in batches of 1, shuffled"),
        ({"epochs": 4}, "4 epochs"),
    ],
)
def test_a_checkpoint_of_other_data_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any], named: str
) -> None:
    Run(tmp_path).train(**other)

    again = Run(tmp_path).train()

    said = capsys.readouterr().err
    refused = next(line for line in said.splitlines() if "refused" in line)
    assert "checkpoint-000001" in refused
    assert named in refused
    assert again.seen == Counter(dict.fromkeys(range(SIZE), EPOCHS))


def test_a_checkpoint_of_another_seed_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Run(tmp_path).train()
    (saved,) = checkpoint.newest(tmp_path, print)
    shutil.rmtree(saved.folder)
    facts = replace(saved.facts, seed=7)
    checkpoint.write(saved.folder, saved.state, saved.ledger, facts)

    again = Run(tmp_path).train()

    assert "refused: checkpoint-000001 is of a run with --seed 7" in capsys.readouterr().err
    assert again.seen == Counter(dict.fromkeys(range(SIZE), EPOCHS))


def test_a_run_without_data_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    first = Run(dssync.Checkpoint(tmp_path, every_steps=4, kind="member"))
    while not folders(tmp_path):
        first.steps.count += 1
        first.sync.step()
    first.sync.close()
    saved = checkpoint.read(checkpoint.published(tmp_path)[-1])

    again = Run(tmp_path)
    again.sync.step()

    assert again.steps.count == saved.state["steps"]["count"] > 0


class Strict(Steps):
    """Takes no other count than its own."""

    def load_state_dict(self, state: dict[str, object]) -> None:
        if state["count"] != self.count:
            raise KeyError("count")


@pytest.mark.parametrize("foreign", ["optimizer", "registered"])
def test_a_checkpoint_that_turns_out_to_be_of_another_script_changes_nothing(
    tmp_path: Path, foreign: str
) -> None:
    # What is registered is loaded last, when the others have changed already.
    own = {"optimized": partial(torch.optim.AdamW, lr=0.01)}
    kept: dict[str, Any] = own if foreign == "optimizer" else {"steps": Strict()}
    Run(tmp_path).train()
    undisturbed = Run(None, **kept).train()
    kept = own if foreign == "optimizer" else {"steps": Strict()}

    run = Run(tmp_path, **kept).train()

    assert torch.equal(run.model[0].weight, undisturbed.model[0].weight)


def test_settings_that_cannot_be_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="every_steps=0"):
        dssync.Checkpoint(tmp_path, every_steps=0)
    monkeypatch.setenv("DSSYNC_CHECKPOINT_PATH", str(tmp_path))
    monkeypatch.setenv("DSSYNC_CHECKPOINT_KEEP", "many")
    with pytest.raises(UsageError, match="many"):
        Run(None)


def test_the_pods_variables_say_where_and_how_often() -> None:
    pod = {
        "DSSYNC_CHECKPOINT_PATH": "/data",
        "DSSYNC_CHECKPOINT_INTERVAL_STEPS": "2",
        "DSSYNC_CHECKPOINT_KEEP": "4",
    }

    assert checkpoint_of(None, pod) == dssync.Checkpoint("/data", every_steps=2, keep=4)
    assert checkpoint_of("/here", pod) == dssync.Checkpoint("/here", every_steps=2, keep=4)
    assert checkpoint_of(None, {}) is None
