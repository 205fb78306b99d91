"""Messages survive the wire, and nothing else gets through it."""

import json
import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from dssync.control import messages as m
from dssync.control.codec import Codec, Message, Record, tag_of
from dssync.errors import ProtocolError

ROADS = {
    "member": (m.MEMBER, m.FromMemberBody),
    "to member": (m.TO_MEMBER, m.ToMemberBody),
    "launcher": (m.LAUNCHER, m.FromLauncher),
    "to launcher": (m.TO_LAUNCHER, m.ToLauncher),
}
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)


def messages(union: Any) -> st.SearchStrategy[object]:
    """Any message of a road."""
    return st.one_of(*(instances(cls) for cls in union.__args__))


def instances(cls: type) -> st.SearchStrategy[object]:
    values = {
        float: st.floats(allow_nan=False, allow_infinity=False),
        int: st.integers(-(2**62), 2**62),
        str: TEXT,
        bool: st.booleans(),
    }
    for kind, strategy in values.items():
        st.register_type_strategy(kind, strategy)
    return st.builds(cls)


def road_and_message() -> st.SearchStrategy[tuple[Codec, object]]:
    return st.one_of(
        *(st.tuples(st.just(codec), messages(union)) for codec, union in ROADS.values())
    )


@given(road_and_message())
def test_every_message_of_every_road_survives_a_round_trip(
    sent: tuple[Codec, object],
) -> None:
    codec, message = sent

    assert codec.decode(codec.encode(message)) == message
    assert codec.decode(codec.encode_text(message)) == message


@given(road_and_message())
def test_encoded_messages_start_with_their_tag(
    sent: tuple[Codec, object],
) -> None:
    codec, message = sent

    text = codec.encode_text(message)

    assert tag_of(text) == type(message).__name__


@given(st.binary(max_size=200))
def test_arbitrary_bytes_decode_to_nothing_or_are_refused(data: bytes) -> None:
    for codec, _ in ROADS.values():
        with pytest.raises(ProtocolError):
            codec.decode(data)


@given(st.data())
def test_a_known_tag_with_arbitrary_fields_is_a_message_or_refused(data: st.DataObject) -> None:
    codec, union = data.draw(st.sampled_from(list(ROADS.values())))
    cls = data.draw(st.sampled_from(union.__args__))
    count = len(msgspec.structs.fields(cls))
    fields = data.draw(st.lists(JSON, min_size=count, max_size=count))

    try:
        message = codec.decode(json.dumps([cls.__name__, *fields]))
    except ProtocolError:
        return

    assert codec.decode(codec.encode(message)) == message


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('["Take",true,0]', "Expected `int`, got `bool`"),
        ('["Take",1.5,0]', "Expected `int`, got `float`"),
        ('["Take","1",0]', "Expected `int`, got `str`"),
        ('["Take"]', "at least length"),
        ('["Take",1,0,2]', "at most length"),
        ('["Leave",7]', "Expected `str`, got `int`"),
        ('["Leave","\\ud800"]', "is no message"),
        ('["Applied",1,0,{"a":1}]', "Expected `array`, got `object`"),
        ('["Enter",[],["grid",2,1,"relaxed"],"a:1",-1,false]', "at `$[2]`"),
        ('["Take",' + "9" * 5000 + "]", "out of range"),
        ("[" * 100_000, "recursion"),
        ('{"Take":1}', "Expected `array`, got `object`"),
        ('["Assign"]', "Invalid value 'Assign'"),
        ('[["Take"],1]', "Expected `str`"),
        ("[]", "at least length"),
        ("", "truncated"),
    ],
)
def test_what_is_no_message_of_a_member_is_refused_with_a_sentence(
    text: str, sentence: str
) -> None:
    with pytest.raises(ProtocolError, match="wire") as caught:
        m.MEMBER.decode(text)

    assert sentence in str(caught.value)


def test_a_number_beyond_floats_is_refused() -> None:
    with pytest.raises(ProtocolError, match="out of range"):
        m.TO_MEMBER.decode(_assign("1" + "0" * 400))


def test_a_float_may_be_written_as_a_whole_number() -> None:
    message = m.TO_MEMBER.decode(_assign("1"))

    assert isinstance(message, m.Assign)
    assert math.copysign(1, message.progress) == 1.0
    assert type(message.progress) is float


def _assign(progress: str) -> str:
    return f'["Assign",1,0,"train",false,[],[],2,1,"0.0.a","",true,{progress},1]'


def test_optional_fields_and_nested_records_survive() -> None:
    class Inner(Record, frozen=True):
        names: tuple[str, ...]

    class Outer(Message, frozen=True):
        inner: tuple[Inner, ...]
        limit: int | None

    codec = Codec([Outer])

    for outer in (Outer((Inner(("a",)), Inner(())), None), Outer((), 3)):
        assert codec.decode(codec.encode(outer)) == outer
