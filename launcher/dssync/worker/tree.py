"""State dictionaries as JSON and a list of tensors. No pickle: what cannot be told is refused."""

from collections.abc import Sequence

import torch

from dssync.errors import ModelError, TransferError

PLAIN = (bool, int, float, str)


def pack(value: object, tensors: list[torch.Tensor], path: str = "state") -> object:
    """Return ``value`` as plain JSON values; tensors go into ``tensors`` and leave their index.

    Raises:
        ModelError: something is neither a tensor, a plain value, a list, a tuple nor a
            dictionary; the message says where.
    """
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        tensors.append(value.detach())
        return {"tensor": len(tensors) - 1}
    if isinstance(value, list | tuple):
        items = [pack(each, tensors, f"{path}[{i}]") for i, each in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, dict):
        pairs = [
            [pack(k, tensors, f"{path} key"), pack(v, tensors, f"{path}[{k!r}]")]
            for k, v in value.items()
        ]
        return {"dict": pairs}
    raise ModelError(
        f"{path} is a {type(value).__name__}, which cannot be sent to a joiner without pickle: "
        "keep tensors, numbers, strings, lists, tuples and dictionaries in state_dict()"
    )


def unpack(packed: object, tensors: Sequence[torch.Tensor]) -> object:
    """Return what was packed.

    Raises:
        TransferError: ``packed`` is not what ``pack`` makes.
    """
    match packed:
        case None | bool() | int() | float() | str():
            return packed
        case list():
            return [unpack(each, tensors) for each in packed]
        case {"tensor": int(index)} if 0 <= index < len(tensors):
            return tensors[index]
        case {"tuple": list(items)}:
            return tuple(unpack(each, tensors) for each in items)
        case {"dict": list(pairs)}:
            return {unpack(k, tensors): unpack(v, tensors) for k, v in pairs}
    raise TransferError(f"state on the wire holds {str(packed)[:80]!r}, which no member sends")
