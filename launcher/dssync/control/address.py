"""Addresses as text: ``HOST:PORT``, with an IPv6 address in brackets. Pure."""

import re

from dssync.errors import ProtocolError

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\s:\[\]]+)):([0-9]{1,5})", re.ASCII)


def endpoint_of(address: str) -> tuple[str, int]:
    """Return host and port of an address; the host without brackets.

    Raises:
        ProtocolError: it is no address.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None or int(found[3]) > 65535:
        raise ProtocolError(
            f"{address!r} is no address: expected HOST:PORT, with an IPv6 address in brackets and "
            "a port up to 65535"
        )
    return found[1] or found[2], int(found[3])


def address_of(host: str, port: int | str) -> str:
    """Return the address of a host, which may be an IPv6 address, and a port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
