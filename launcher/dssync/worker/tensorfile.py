"""safetensors files, written straight from the memory that holds the tensors.

A file is eight bytes of length, a JSON header and the bytes of the tensors without a gap. Writing
it here and not in ``safetensors`` is for the checksum: it is made from the same memory while the
disk works, instead of from a file that was written, which took as long as writing it.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import torch

from dssync.errors import CheckpointError

TYPES: Final = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint64: "U64", torch.uint32: "U32", torch.uint16: "U16", torch.uint8: "U8",
    torch.bool: "BOOL", torch.complex64: "C64",
    torch.float8_e4m3fn: "F8_E4M3", torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e5m2: "F8_E5M2", torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
}  # fmt: skip
"""Names of the format; ``safetensors.torch`` reads these and no others."""
_ALIGNMENT: Final = 8
_CHUNK_BYTES: Final = 8 << 20
"""Enough to keep a disk busy while the checksum of as many bytes is made."""


def write_files(folder: Path, files: Mapping[str, Mapping[str, torch.Tensor]]) -> dict[str, object]:
    """Write files of tensors that do not exist yet, and make their contents durable.

    Returns:
        For each file ``bytes`` and ``sha256`` of what was to be written.

    Raises:
        OSError: the disk does not take it.
        CheckpointError: a tensor is of a type that the format does not have.
    """
    parts = {name: _parts_of(tensors) for name, tensors in files.items()}
    with ExitStack() as stack:
        opened = [stack.enter_context((folder / name).open("xb")) for name in parts]
        writes = [partial(_write, *each) for each in zip(opened, parts.values(), strict=True)]
        digests = side_by_side(writes)
    return {
        name: {"bytes": sum(map(len, each)), "sha256": digest}
        for (name, each), digest in zip(parts.items(), digests, strict=True)
    }


def _parts_of(tensors: Mapping[str, torch.Tensor]) -> list[memoryview]:
    """Return the bytes of a file, in order, most of them those of the tensors themselves."""
    # The widest first, so that all are aligned to their own size without gaps.
    names = sorted(tensors, key=lambda name: -tensors[name].element_size())
    header, parts, end = {}, [], 0
    for name in names:
        tensor = tensors[name]
        if tensor.dtype not in TYPES:
            raise CheckpointError(
                f"tensor {name!r} is {tensor.dtype}, which no checkpoint can hold"
            )
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        header[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [end, end + len(data)],
        }
        end += len(data)
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return [memoryview(len(text).to_bytes(8, "little") + text), *parts]


def _write(file: BinaryIO, parts: Sequence[memoryview]) -> str:
    """Write a file, make it durable and return its checksum, made while the disk works."""
    digest = hashlib.sha256()
    for chunk in _chunks(parts):
        begin = file.tell()
        for part in chunk:
            file.write(part)
        file.flush()
        # For pages that are not on the disk yet, this advice means: begin.
        os.posix_fadvise(file.fileno(), begin, file.tell() - begin, os.POSIX_FADV_DONTNEED)
        for part in chunk:
            digest.update(part)
    os.fsync(file.fileno())
    return digest.hexdigest()


def _chunks(parts: Sequence[memoryview]) -> Iterator[list[memoryview]]:
    """Cut a file into pieces of about ``_CHUNK_BYTES``."""
    chunk, size = list[memoryview](), 0
    for part in parts:
        for begin in range(0, len(part), _CHUNK_BYTES):
            chunk.append(part[begin : begin + _CHUNK_BYTES])
            size += len(chunk[-1])
            if size >= _CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


def side_by_side(calls: Sequence[Callable[[], object]]) -> list[object]:
    """Make calls in a thread each, and return what they return when the last one has ended.

    Raises:
        Exception: what the first of them in order has raised.
    """
    results: list[object] = [None] * len(calls)
    errors: dict[int, Exception] = {}

    def run(number: int) -> None:
        try:
            results[number] = calls[number]()
        except Exception as error:
            errors[number] = error

    # Daemons, as the thread that waits for them: a process that is to end does not wait for disks.
    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[min(errors)]
    return results
