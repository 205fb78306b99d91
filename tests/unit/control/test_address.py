"""Addresses that launchers, members and people write down."""

import pytest

from dssync.control.address import address_of, endpoint_of
from dssync.errors import ProtocolError


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("127.0.0.1", 7000, "127.0.0.1:7000"),
        ("::1", 65535, "[::1]:65535"),
        ("localhost", 0, "localhost:0"),
    ],
)
def test_an_address_is_read_as_it_was_written(host: str, port: int, text: str) -> None:
    assert address_of(host, port) == text
    assert endpoint_of(text) == (host, port)


@pytest.mark.parametrize(
    "text",
    ["", "host", "host:", ":7000", "host:65536", "host:-1", "host:1 ", "host:٣",
     "::1:7000", "[::1]", "[::1:7000", "[host]:7000", "a:b:7000", "two words:7000"],
)  # fmt: skip
def test_anything_else_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProtocolError, match="expected HOST:PORT") as refusal:
        endpoint_of(text)

    assert repr(text) in str(refusal.value)
