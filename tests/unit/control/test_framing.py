"""Frames come out as they went in, however the stream is cut, and none grows beyond its limit."""

import sys

import pytest
from hypothesis import given, strategies as st

from dssync.control.transport import MAX_FRAME_BYTES, Unframer, frame
from dssync.errors import ProtocolError

PAYLOADS = st.lists(st.binary(max_size=60), max_size=8)


@given(PAYLOADS, st.data())
def test_any_chunking_of_the_stream_gives_the_same_frames(
    payloads: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(frame(payload) for payload in payloads)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    unframer = Unframer()

    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += unframer.feed(stream[start:end])

    assert received == payloads


@given(st.integers(min_value=MAX_FRAME_BYTES + 1, max_value=2**32 - 1))
def test_an_oversized_frame_is_refused_by_its_announcement(size: int) -> None:
    unframer = Unframer()
    announced = size.to_bytes(4, "big")

    with pytest.raises(ProtocolError, match=f"{size} bytes"):
        unframer.feed(announced)

    assert sys.getsizeof(unframer._buffer) < 1000


def test_frames_before_an_oversized_one_are_lost_with_it() -> None:
    unframer = Unframer(limit_bytes=4)

    with pytest.raises(ProtocolError, match="at most 4"):
        unframer.feed(frame(b"good") + frame(b"too long"))


def test_a_frame_of_exactly_the_limit_passes() -> None:
    assert Unframer(limit_bytes=8).feed(frame(b"12345678")) == [b"12345678"]
