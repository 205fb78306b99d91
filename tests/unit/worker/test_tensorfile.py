"""Files of tensors are those of safetensors; checksums are those of what was to be written."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dssync.errors import CheckpointError
from dssync.worker.tensorfile import TYPES, side_by_side, write_files


def written(folder: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    told = write_files(folder, {"file": tensors})["file"]
    data = (folder / "file").read_bytes()
    assert told == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return load_file(folder / "file")


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_tensors_of_every_type_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    tensor = torch.arange(6).reshape(2, 3).to(torch.float32).to(dtype)
    given = {"odd": torch.ones(3, dtype=torch.uint8), "tensor": tensor}

    found = written(tmp_path, given)

    assert found["tensor"].dtype == dtype
    assert found["tensor"].shape == (2, 3)
    as_bytes = [each["tensor"].contiguous().view(torch.uint8) for each in (found, given)]
    assert torch.equal(*as_bytes)


def test_any_shape_and_layout_comes_back(tmp_path: Path) -> None:
    matrix = torch.arange(12.0).reshape(3, 4)
    given = {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "across": matrix.t(),
        "every other": matrix[:, ::2],
        "trained": torch.ones(2, requires_grad=True),
        'Gewicht.ä"\n': torch.ones(1),
    }

    found = written(tmp_path, given)

    assert found.keys() == given.keys()
    for name, tensor in given.items():
        assert torch.equal(found[name], tensor)


def test_a_tensor_longer_than_what_is_written_at_once_comes_back(tmp_path: Path) -> None:
    given = {
        "long": torch.arange(5_000_001.0),
        "short": torch.ones(3),
        "wide": torch.ones(3).double(),
    }

    found = written(tmp_path, given)

    assert all(torch.equal(found[name], tensor) for name, tensor in given.items())


def test_a_file_without_tensors_can_be_read(tmp_path: Path) -> None:
    assert written(tmp_path, {}) == {}


def test_the_file_is_as_long_as_one_of_safetensors_itself(tmp_path: Path) -> None:
    given = {f"layer{n}": torch.rand(n + 1) for n in range(9)} | {"half": torch.rand(3).half()}

    written(tmp_path, given)
    save_file(given, tmp_path / "other")

    headers = []
    for name in ("file", "other"):
        data = (tmp_path / name).read_bytes()
        size = int.from_bytes(data[:8], "little")
        assert size % 8 == 0, "tensors must be aligned"
        headers.append((json.loads(data[8 : 8 + size]), len(data) - size))
    assert headers[0][0].keys() == headers[1][0].keys()
    assert headers[0][1] == headers[1][1]
    with safe_open(tmp_path / "file", "pt") as file:  # which maps it into memory
        assert torch.equal(file.get_tensor("half"), given["half"])


def test_a_type_that_no_file_can_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tensor 'x' is torch.complex128"):
        write_files(tmp_path, {"file": {"x": torch.ones(1, dtype=torch.complex128)}})


def test_a_file_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("mine")
    with pytest.raises(FileExistsError):
        write_files(tmp_path, {"a": {"x": torch.ones(1)}, "b": {"x": torch.ones(1)}})
    assert (tmp_path / "b").read_text() == "mine"


def test_calls_side_by_side_return_in_order_and_raise_the_first_error() -> None:
    def fail(what: str) -> None:
        raise ValueError(what)

    assert side_by_side([lambda: 1, lambda: 2]) == [1, 2]
    with pytest.raises(ValueError, match="first"):
        side_by_side([lambda: 1, lambda: fail("first"), lambda: fail("second")])
