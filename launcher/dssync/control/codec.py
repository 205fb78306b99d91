"""Messages to JSON and back, checked field by field.

Everything on a control connection is one of a closed list of messages: a JSON array of the tag
and the fields in order. msgspec decodes by the annotations, so that a peer can only ever produce
objects of the declared shape; there is no pickle and no lookup of a name that came from outside.
"""

from collections.abc import Iterable
from typing import Any, Generic, TypeVar, Union

import msgspec

from dssync.errors import ProtocolError


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """A part of messages: values all the way down, so that the collector need not look at it."""


class Message(Record, frozen=True, tag=True):
    """What travels by itself; the name of its class is the tag."""


_M = TypeVar("_M", bound=Message)


class Codec(Generic[_M]):
    """Encodes and decodes a closed list of messages.

    Args:
        classes: the messages that may travel.
    """

    def __init__(self, classes: Iterable[type[_M]]) -> None:
        # A union made of a list has no other spelling.
        listed: Any = Union[tuple(classes)]  # noqa: UP007
        self._decoder = msgspec.json.Decoder(listed)

    def encode(self, message: _M) -> bytes:
        """Return the JSON text of one message, in UTF-8."""
        return _encoder.encode(message)

    def encode_text(self, message: _M) -> str:
        """Return the JSON text of one message."""
        return _encoder.encode(message).decode()

    def decode(self, data: bytes | str) -> _M:
        """Return the message in ``data``.

        Raises:
            ProtocolError: it is not JSON, or not a message of the list.
        """
        try:
            message: _M = self._decoder.decode(data)
        except (msgspec.DecodeError, RecursionError, UnicodeError) as error:
            raise ProtocolError(f"{data[:80]!r} on the wire is no message: {error}") from None
        return message


_encoder = msgspec.json.Encoder()


def tag_of(text: str) -> str:
    """Return the class name of an encoded message without decoding it; empty if there is none."""
    return text[2:].partition('"')[0] if text.startswith('["') else ""
