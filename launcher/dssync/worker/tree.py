"""State dictionaries as JSON and a list of tensors. No pickle: what cannot be told is refused."""

from collections.abc import Sequence

import torch

from dssync.errors import ModelError, TransferError

PLAIN = frozenset({bool, int, float, str})


class _ForeignError(Exception):
    """Something that cannot be told, with its place as far as it is known."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.place = ""


def pack(value: object, tensors: list[torch.Tensor]) -> object:
    """Return ``value`` as plain JSON values; tensors go into ``tensors`` and leave their index.

    The training waits for this in every save, so that places are found out for an error only.

    Raises:
        ModelError: something is neither a tensor, a plain value, a list, a tuple nor a
            dictionary; the message says where.
    """
    try:
        return _pack(value, tensors)
    except _ForeignError as found:
        raise ModelError(
            f"state{found.place} is a {found.kind}, which cannot be sent to a joiner without "
            "pickle: keep tensors, numbers, strings, lists, tuples and dictionaries in state_dict()"
        ) from None


def _pack(value: object, tensors: list[torch.Tensor]) -> object:
    if value is None or type(value) in PLAIN:
        return value
    if isinstance(value, torch.Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, dict):
        return {"dict": _pack_pairs(value, tensors)}
    if isinstance(value, list | tuple):
        items = _pack_items(value, tensors)
        return {"tuple": items} if isinstance(value, tuple) else items
    raise _ForeignError(type(value).__name__)


def _pack_pairs(value: dict[object, object], tensors: list[torch.Tensor]) -> list[object]:
    pairs: list[object] = []
    for key, each in value.items():
        if type(each) is torch.Tensor and type(key) in PLAIN:  # as nearly all of a state is
            pairs.append([key, {"tensor": len(tensors)}])
            tensors.append(each)
            continue
        try:
            pairs.append([_pack(key, tensors), _pack(each, tensors)])
        except _ForeignError as found:
            found.place = f"[{key!r}]{found.place}"
            raise
    return pairs


def _pack_items(value: Sequence[object], tensors: list[torch.Tensor]) -> list[object]:
    items: list[object] = []
    for number, each in enumerate(value):
        try:
            items.append(_pack(each, tensors))
        except _ForeignError as found:
            found.place = f"[{number}]{found.place}"
            raise
    return items


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
