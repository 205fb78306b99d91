"""Which transport carries the sums, and where values are staged."""

import pytest
import torch

from dssync.errors import UsageError
from dssync.worker.buckets import HOST
from dssync.worker.transport import Machine, staging_device

FIRST, SECOND = torch.device("cuda", 0), torch.device("cuda", 1)
ONE_GPU = Machine(gpus=1, has_nccl=True, workers=1)


def test_auto_takes_nccl_where_the_whole_model_is_on_a_gpu_of_its_own() -> None:
    assert staging_device("auto", [SECOND, SECOND], Machine(2, True, 2)) == SECOND


@pytest.mark.parametrize(
    ("devices", "machine"),
    [
        pytest.param([HOST], ONE_GPU, id="the model is on the CPU"),
        pytest.param([FIRST, HOST], ONE_GPU, id="a part of it is"),
        pytest.param([FIRST, SECOND], Machine(2, True, 1), id="it is spread over GPUs"),
        pytest.param([FIRST], Machine(1, True, 2), id="two workers share the GPU"),
        pytest.param([FIRST], Machine(1, False, 1), id="torch has no NCCL"),
        pytest.param([HOST], Machine(0, True, 1), id="there is no GPU"),
    ],
)
def test_auto_takes_gloo_elsewhere(devices: list[torch.device], machine: Machine) -> None:
    assert staging_device("auto", devices, machine) == HOST


def test_gloo_is_gloo_also_for_a_model_on_a_gpu() -> None:
    assert staging_device("gloo", [FIRST], ONE_GPU) == HOST


def test_nccl_is_nccl_also_for_workers_that_share_a_gpu() -> None:
    assert staging_device("nccl", [FIRST], Machine(1, True, 4)) == FIRST


@pytest.mark.parametrize(
    ("devices", "machine", "words"),
    [
        ([FIRST], Machine(0, True, 1), "none is visible here"),
        ([FIRST], Machine(1, False, 1), "this torch has none"),
        ([HOST, FIRST], ONE_GPU, "on one GPU, but its tensors are on cpu, cuda:0: move it"),
    ],
)
def test_nccl_that_cannot_run_is_refused_in_one_sentence(
    devices: list[torch.device], machine: Machine, words: str
) -> None:
    with pytest.raises(UsageError) as caught:
        staging_device("nccl", devices, machine)

    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
