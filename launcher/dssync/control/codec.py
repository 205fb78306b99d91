"""Frozen dataclasses to JSON and back, checked field by field.

Everything on a control connection is one of a closed list of dataclasses. A message is a JSON
array: its tag, then its fields in order. Decoding follows the annotations, so that a peer can
only ever produce objects of the declared shape; there is no pickle and no lookup of a name that
came from outside.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Iterable

from dssync.errors import ProtocolError

_Decoder = Callable[[object], object]


def _scalar(kind: type) -> _Decoder:
    def decode(value: object) -> object:
        if type(value) is not kind:
            raise ProtocolError(f"value {value!r} on the wire is not of type {kind.__name__}")
        return value

    return decode


def _float(value: object) -> object:
    if type(value) is int or type(value) is float:
        return float(value)
    raise ProtocolError(f"value {value!r} on the wire is not a number")


def _tuple(item: _Decoder) -> _Decoder:
    def decode(value: object) -> object:
        if not isinstance(value, list):
            raise ProtocolError(f"value {value!r} on the wire is not a list")
        return tuple(item(each) for each in value)

    return decode


def _optional(inner: _Decoder) -> _Decoder:
    return lambda value: None if value is None else inner(value)


def _record(cls: type) -> _Decoder:
    hints = typing.get_type_hints(cls)
    decoders = [_decoder(hints[field.name]) for field in dataclasses.fields(cls)]

    def decode(value: object) -> object:
        if not isinstance(value, list) or len(value) != len(decoders):
            raise ProtocolError(f"{cls.__name__} on the wire has the wrong number of fields")
        return cls(*(decode(each) for decode, each in zip(decoders, value, strict=True)))

    return decode


def _decoder(hint: object) -> _Decoder:
    """Return what decodes a value of one annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return _float
    if hint in (int, str, bool):
        return _scalar(typing.cast(type, hint))
    if origin is tuple:
        return _tuple(_decoder(arguments[0]))
    if origin is types.UnionType:
        return _optional(_decoder(arguments[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record(hint)
    raise TypeError(f"no wire form for the annotation {hint!r}")


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if dataclasses.is_dataclass(value):
        return [_plain(getattr(value, field.name)) for field in dataclasses.fields(value)]
    return value


class Codec:
    """Encodes and decodes a closed list of message classes.

    Args:
        classes: the frozen dataclasses that may travel; the class name is the tag.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        self._decoders = {cls.__name__: _record(cls) for cls in classes}

    def encode(self, message: object) -> bytes:
        """Return the JSON text of one message."""
        body = _plain(message)
        return json.dumps([type(message).__name__, *typing.cast(list[object], body)]).encode()

    def decode(self, data: bytes) -> object:
        """Return the message in ``data``.

        Raises:
            ProtocolError: it is not JSON, or not a message of the list.
        """
        try:
            frame = json.loads(data)
        except (ValueError, RecursionError):
            raise ProtocolError(f"{len(data)} bytes on the wire are not JSON") from None
        tag = frame[0] if isinstance(frame, list) and frame else None
        if not isinstance(tag, str) or tag not in self._decoders:
            raise ProtocolError(f"unknown message on the wire: {data[:80]!r}")
        return self._decoders[tag](frame[1:])


def tag_of(text: str) -> str:
    """Return the class name of an encoded message without decoding it; empty if there is none."""
    return text[2:].partition('"')[0] if text.startswith('["') else ""
