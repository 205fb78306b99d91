"""A small blocking client of the API server, for set-up and for assertions.

Each thread keeps one connection, since a handshake costs the API server more than most requests.
"""

import contextlib
import http.client
import json
import math
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

Manifest = dict[str, Any]
ADMIN: Final = "admin"
REQUEST_SECONDS: Final = 30.0
PATIENCE_SECONDS: Final = 60.0
"""How long tests wait for what should come at once; only a failing test waits it out."""


class ApiClient:
    """Requests to one API server on the loopback."""

    def __init__(self, port: int, ca_file: Path, tokens: Mapping[str, str]) -> None:
        """Prepare; nothing is opened.

        Args:
            port: Where the server listens.
            ca_file: Its certificate; read when the first connection is made.
            tokens: By name of the user.
        """
        self._port = port
        self._ca_file = ca_file
        self._tokens = tokens
        self._kept: dict[int, http.client.HTTPSConnection] = {}

    def request(
        self,
        method: str,
        path: str,
        body: object = None,
        user: str = ADMIN,
        content_type: str = "application/json",
    ) -> tuple[int, Manifest]:
        """Send one request and return status and body."""
        data = None if body is None else json.dumps(body).encode()
        kept = self._kept.pop(threading.get_ident(), None)
        if kept is not None:
            # Else the server has ended the idle line.
            with contextlib.suppress(ConnectionError, ssl.SSLEOFError, http.client.BadStatusLine):
                return self._exchange(kept, method, path, user, (data, content_type))
        line = self._connect(REQUEST_SECONDS)
        return self._exchange(line, method, path, user, (data, content_type))

    def close(self) -> None:
        """End the lines that were kept."""
        while self._kept:
            self._kept.popitem()[1].close()

    def until(
        self,
        collection: str,
        holds: Callable[[list[Manifest]], bool],
        seconds: float = PATIENCE_SECONDS,
        every_seconds: float = math.inf,
    ) -> list[Manifest]:
        """Wait until something holds for the objects of a collection, and return them.

        It looks again whenever the API server tells of a change, and never sleeps.

        Args:
            collection: Path, with a query where needed.
            holds: Tells whether the wait is over.
            seconds: Patience.
            every_seconds: After how long without a change to look all the same.

        Raises:
            AssertionError: It did not come to hold in time.
        """
        give_up = time.monotonic() + seconds
        while True:
            _, found = self.request("GET", collection)
            items = found["items"]
            if holds(items):
                return items
            left = give_up - time.monotonic()
            if left <= 0:
                raise AssertionError(f"{collection}: not within {seconds:g} s; there are {items}")
            version = found["metadata"]["resourceVersion"]
            self._next_event(collection, version, min(left, every_seconds))

    def history(self, collection: str, since: str) -> list[Manifest]:
        """Everything that happened to a collection since a version, as events, oldest first."""
        line = self._connect(REQUEST_SECONDS)
        try:
            answer = self._ask(line, "GET", _watch(collection, since, 1))
            events = [json.loads(each) for each in answer]
        finally:
            line.close()
        assert all(event["type"] != "ERROR" for event in events), events
        return events

    def _next_event(self, collection: str, since: str, seconds: float) -> None:
        line = self._connect(seconds)
        try:
            self._ask(line, "GET", _watch(collection, since, math.ceil(seconds))).readline()
        except (OSError, http.client.HTTPException):
            return  # no event in time, or a server that restarts: the caller looks again
        finally:
            line.close()

    def _exchange(
        self,
        line: http.client.HTTPSConnection,
        method: str,
        path: str,
        user: str,
        content: tuple[bytes | None, str],
    ) -> tuple[int, Manifest]:
        """Keep the line only after a whole answer: half of one is of no use to anybody."""
        try:
            answer = self._ask(line, method, path, user, content)
            said = answer.read()
        except BaseException:
            line.close()
            raise
        self._kept[threading.get_ident()] = line
        return answer.status, json.loads(said)

    def _connect(self, seconds: float) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self._ca_file))
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=seconds, context=context
        )

    def _ask(
        self,
        line: http.client.HTTPSConnection,
        method: str,
        path: str,
        user: str = ADMIN,
        content: tuple[bytes | None, str] = (None, "application/json"),
    ) -> http.client.HTTPResponse:
        data, content_type = content
        headers = {
            "Authorization": f"Bearer {self._tokens[user]}",
            "Content-Type": content_type,
            "User-Agent": "ground",
        }
        line.request(method, path, data, headers)
        return line.getresponse()


def _watch(collection: str, since: str, seconds: int) -> str:
    glue = "&" if "?" in collection else "?"
    return f"{collection}{glue}watch=1&resourceVersion={since}&timeoutSeconds={seconds}"
