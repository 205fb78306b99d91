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

_Convert = Callable[[typing.Any], object]

_to_json = json.JSONEncoder(separators=(",", ":")).encode


class Codec:
    """Encodes and decodes a closed list of message classes.

    Args:
        classes: the frozen dataclasses that may travel; the class name is the tag.
    """

    def __init__(self, classes: Iterable[type]) -> None:
        listed = tuple(classes)
        self._encoders = {cls: _record_encoder(cls) for cls in listed}
        self._decoders = {cls.__name__: _record_decoder(cls) for cls in listed}

    def encode(self, message: object) -> bytes:
        """Return the JSON text of one message."""
        return self.encode_text(message).encode()

    def encode_text(self, message: object) -> str:
        """Return the JSON text of one message, which is plain ASCII."""
        fields = typing.cast(list[object], self._encoders[type(message)](message))
        return _to_json([type(message).__name__, *fields])

    def decode(self, data: bytes | str) -> object:
        """Return the message in ``data``.

        Raises:
            ProtocolError: it is not JSON, or not a message of the list.
        """
        try:
            frame = json.loads(data if isinstance(data, str) else data.decode())
        except (ValueError, RecursionError):
            raise ProtocolError(f"{len(data)} bytes on the wire are not JSON") from None
        tag = frame[0] if isinstance(frame, list) and frame else None
        if not isinstance(tag, str) or tag not in self._decoders:
            raise ProtocolError(f"unknown message on the wire: {data[:80]!r}")
        return self._decoders[tag](frame[1:])


# --- to JSON ----------------------------------------------------------------------------------


def _as_is(value: object) -> object:
    return value


def _record_encoder(cls: type) -> _Convert:
    hints = typing.get_type_hints(cls)
    fields = [(field.name, _encoder(hints[field.name])) for field in dataclasses.fields(cls)]
    return lambda value: [encode(getattr(value, name)) for name, encode in fields]


def _encoder(hint: object) -> _Convert:
    """Return what makes a JSON value of a value of one annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is tuple:
        item = _encoder(arguments[0])
        return list if item is _as_is else lambda value: [item(each) for each in value]
    if origin is types.UnionType:
        inner = _encoder(arguments[0])
        return lambda value: None if value is None else inner(value)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_encoder(hint)
    return _as_is


# --- from JSON --------------------------------------------------------------------------------


def _record_decoder(cls: type) -> _Convert:
    hints = typing.get_type_hints(cls)
    decoders = [_decoder(hints[field.name]) for field in dataclasses.fields(cls)]

    def decode(value: object) -> object:
        if not isinstance(value, list) or len(value) != len(decoders):
            raise ProtocolError(f"{cls.__name__} on the wire has the wrong number of fields")
        return cls(*[decode(each) for decode, each in zip(decoders, value, strict=True)])

    return decode


def _decoder(hint: object) -> _Convert:
    """Return what decodes a value of one annotation."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float:
        return _float
    if hint is str:
        return _text
    if hint in (int, bool):
        return _scalar(typing.cast(type, hint))
    if origin is tuple:
        return _tuple(_decoder(arguments[0]))
    if origin is types.UnionType:
        return _optional(_decoder(arguments[0]))
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _record_decoder(hint)
    raise TypeError(f"no wire form for the annotation {hint!r}")


def _scalar(kind: type) -> _Convert:
    def decode(value: object) -> object:
        if type(value) is not kind:
            raise ProtocolError(f"value {value!r} on the wire is not of type {kind.__name__}")
        return value

    return decode


def _text(value: object) -> object:
    if type(value) is not str:
        raise ProtocolError(f"value {value!r} on the wire is not text")
    try:
        # JSON can spell halves of surrogate pairs, which nothing can write down again.
        return value if value.isascii() else value.encode().decode()
    except UnicodeEncodeError:
        raise ProtocolError(f"text {value!r} on the wire is not Unicode") from None


def _float(value: object) -> object:
    if type(value) is not int and type(value) is not float:
        raise ProtocolError(f"value {value!r} on the wire is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ProtocolError("a number on the wire is too large") from None


def _tuple(item: _Convert) -> _Convert:
    def decode(value: object) -> object:
        if not isinstance(value, list):
            raise ProtocolError(f"value {value!r} on the wire is not a list")
        return tuple([item(each) for each in value])

    return decode


def _optional(inner: _Convert) -> _Convert:
    return lambda value: None if value is None else inner(value)


def tag_of(text: str) -> str:
    """Return the class name of an encoded message without decoding it; empty if there is none."""
    return text[2:].partition('"')[0] if text.startswith('["') else ""
