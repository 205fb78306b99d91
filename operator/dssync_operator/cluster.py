"""The only module that talks to the API server: a few verbs over plain manifests.

Configuration and credentials come from the official client; the requests are plain aiohttp,
because model objects cost six times the CPU and nothing here needs them. Refusals become the
exceptions of ``errors``. When the server asks to wait (429), every request waits, not only the
one that was refused.
"""

import asyncio
import functools
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, TypeVar, cast
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes.aio import config as client_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME
from yarl import URL

from dssync_operator import errors
from dssync_operator.job import Manifest, child, text
from dssync_operator.metrics import Metrics
from dssync_operator.wire import Event, Metadata, decode_event, decode_trimmed

T = TypeVar("T")
FIELD_MANAGER: Final = "dssync-operator"
REQUEST_SECONDS: Final = 30.0
WATCH_SILENCE_SECONDS: Final = 120.0
"""Bookmarks come every minute; a watch that is quiet for longer has lost its other end."""
CONNECTIONS: Final = 100
PAGE: Final = 500
_TRIMMED: Final = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
METADATA_ONLY: Final[Mapping[str, str]] = {"Accept": _TRIMMED.format("")}
"""Header that asks for an object, or for events, without spec and status."""
_METADATA_LIST: Final[Mapping[str, str]] = {"Accept": _TRIMMED.format("List")}
_UNDECODED: Final = "cannot be handled as a"
"""In a 400 about types and unknown fields; any other is mostly a policy webhook's."""
_KINDS: Final[Mapping[int, type[errors.ApiError]]] = {
    400: errors.ForbiddenError,
    403: errors.ForbiddenError,
    404: errors.NotFoundError,
    409: errors.ConflictError,
    410: errors.GoneError,
    422: errors.InvalidError,
}


@dataclass(frozen=True)
class Credentials:
    """Where the API server is and how to show who we are."""

    server: str
    ca_file: str | None
    certificate: tuple[str, str] | None
    configuration: Configuration

    async def token(self) -> str | None:
        """The current bearer token with its scheme; the client reads it anew when it expires."""
        return await self.configuration.get_api_key_with_prefix("BearerToken")

    def tls(self) -> ssl.SSLContext | bool:
        """The context that verifies the server and, with a certificate, shows ours."""
        if not self.server.startswith("https"):
            return True
        context = ssl.create_default_context(cafile=self.ca_file)
        if self.certificate is not None:
            context.load_cert_chain(*self.certificate)
        return context


async def find_credentials(kubeconfig: str | None = None) -> Credentials:
    """Load them from a kubeconfig, or else the pod's service account, or else the usual places.

    Raises:
        SettingsError: None of these is usable.
    """
    found = Configuration()
    try:
        if kubeconfig is None and SERVICE_HOST_ENV_NAME in os.environ:
            client_config.load_incluster_config(client_configuration=found)  # type: ignore[no-untyped-call]
        else:
            await client_config.load_kube_config(kubeconfig, client_configuration=found)  # type: ignore[no-untyped-call]
    except client_config.ConfigException as error:
        raise errors.SettingsError(
            f"no usable credentials in {kubeconfig or 'the pod or ~/.kube/config'}: {error}"
        ) from error
    certificate = (found.cert_file, found.key_file) if found.cert_file and found.key_file else None
    return Credentials(found.host.rstrip("/"), found.ssl_ca_cert, certificate, found)


@asynccontextmanager
async def connect(
    credentials: Credentials, connections: int = CONNECTIONS
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a pool of so many connections to the API server; each watch holds one for itself."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=credentials.tls()),
        cookie_jar=aiohttp.DummyCookieJar(),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
        # The server would compress a LIST at several times the cost of sending it.
        headers={"Accept-Encoding": "identity"},
    ) as session:
        yield session


def _allow() -> None:
    """Allow every write."""


class Cluster:
    """Requests to one API server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        credentials: Credentials,
        metrics: Metrics,
        guard: Callable[[], None] = _allow,
    ) -> None:
        """Speak through an open pool.

        Args:
            session: The pool.
            credentials: Whose token goes with each request.
            metrics: Counts requests.
            guard: Called before each write; raises when this process may not act any more.
        """
        self._session = session
        self._credentials = credentials
        self._metrics = metrics
        self._guard = guard
        self._paused_until = 0.0

    async def get(self, path: str) -> Manifest:
        """Read one object.

        Raises:
            NotFoundError: It does not exist.
        """
        return _object(await self._request("GET", path))

    async def create(self, path: str, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Make an object; ``path`` is that of its collection.

        Raises:
            ExistsError: One of that name exists.
        """
        # It is to tell what is wrong: a field that does not exist would be dropped without a word.
        query = {"dryRun": "All", "fieldValidation": "Strict"} if dry_run else None
        return _object(await self._post(path, msgspec.json.encode(manifest), query))

    async def create_from(self, path: str, body: bytes) -> Metadata:
        """Make an object that is JSON already, and read no more of the answer than is needed.

        Raises:
            ExistsError: One of that name exists.
        """
        # By default the server looks for fields that it does not know, to warn of them.
        answer = await self._post(path, body, {"fieldValidation": "Ignore"}, METADATA_ONLY)
        return _decoded(decode_trimmed, answer).metadata

    async def _post(
        self,
        path: str,
        body: bytes,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        asked = {"fieldManager": FIELD_MANAGER, **(query or {})}
        try:
            return await self._request("POST", path, body, asked, headers)
        except errors.ConflictError as error:
            if "AlreadyExists" not in str(error):
                raise
            raise errors.ExistsError(str(error), error.code) from None

    async def apply(self, path: str, manifest: Manifest) -> Manifest:
        """Make an object or bring our fields of it to what ``manifest`` says."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        headers = {"Content-Type": "application/apply-patch+yaml"}
        return _object(
            await self._request("PATCH", path, msgspec.json.encode(manifest), query, headers)
        )

    async def replace(self, path: str, manifest: Manifest) -> Manifest:
        """Write an object if it is still the version that ``manifest`` names.

        Raises:
            ConflictError: It changed since.
        """
        query = {"fieldManager": FIELD_MANAGER}
        return _object(await self._request("PUT", path, msgspec.json.encode(manifest), query))

    async def delete(self, path: str, uid: str) -> None:
        """Delete one object if it is still the one with that uid; one that is gone is success."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", path, msgspec.json.encode(options))
        except (errors.NotFoundError, errors.ConflictError):
            return

    async def pages(
        self, path: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[list[Manifest], str]]:
        """Read a collection in pages, each with the version that a watch may start from."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        headers = _METADATA_LIST if metadata_only else {}
        while True:
            page = _object(await self._request("GET", path, None, query, headers))
            metadata = child(page, "metadata")
            yield cast(list[Manifest], page.get("items") or []), text(metadata, "resourceVersion")
            if not text(metadata, "continue"):
                return
            query["continue"] = text(metadata, "continue")

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Event]:
        """Yield events of a collection, trimmed to metadata, until the server ends the watch.

        Raises:
            GoneError: The version to start from is too old.
            UnavailableError: The connection broke, or was silent for too long.
        """
        limits = aiohttp.ClientTimeout(
            sock_connect=REQUEST_SECONDS, sock_read=WATCH_SILENCE_SECONDS
        )
        try:
            async with await self._open("GET", path, None, query, METADATA_ONLY, limits) as answer:
                rest = b""
                async for chunk in answer.content.iter_any():
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        event = decode_event(line)
                        if event.type == "ERROR":
                            said = event.object
                            _raise(said.code or 500, (said.reason, said.message), path, 0.0)
                        yield event
        except (aiohttp.ClientError, TimeoutError, msgspec.DecodeError) as error:
            raise errors.UnavailableError(f"watch of {path} broke: {error!r}") from error

    async def _request(
        self,
        verb: str,
        path: str,
        body: bytes | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        await self._wait_while_paused()
        if verb != "GET":
            self._guard()
        try:
            async with await self._open(verb, path, body, query or {}, headers or {}) as answer:
                return await answer.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            self._metrics.api_requests.labels(verb, "0").inc()
            message = f"{verb} {path}: no answer from {self._credentials.server}: {error!r}"
            raise errors.UnavailableError(message) from error

    async def _open(
        self,
        verb: str,
        path: str,
        body: bytes | None,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        limits: aiohttp.ClientTimeout | None = None,
    ) -> aiohttp.ClientResponse:
        """Send a request and return its answer if it is a good one; the caller closes it."""
        sent = {"Content-Type": "application/json", **headers}
        token = await self._credentials.token()
        if token is not None:
            sent["Authorization"] = token
        options: dict[str, Any] = {"timeout": limits} if limits else {}
        url = _address(self._credentials.server, path, tuple(query.items()))
        answer = await self._session.request(verb, url, data=body, headers=sent, **options)
        self._metrics.api_requests.labels(verb, str(answer.status)).inc()
        if answer.status < 400:
            return answer
        async with answer:
            wait = _retry_after(answer)
            if answer.status == 429:
                self._pause(wait)
            _raise(answer.status, _said(await answer.read()), f"{verb} {path}", wait)

    def _pause(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    async def _wait_while_paused(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:
            self._metrics.api_throttle_seconds.inc(left)
            await asyncio.sleep(left)


@functools.lru_cache(maxsize=1024)
def _address(server: str, path: str, query: tuple[tuple[str, str], ...]) -> URL:
    return URL(f"{server}{path}{'?' if query else ''}{urlencode(query)}", encoded=True)


def _decoded(decode: Callable[[bytes], T], body: bytes) -> T:
    try:
        return decode(body)
    except msgspec.DecodeError as error:
        said = body[:200].decode(errors="replace")
        message = f"the API server's answer cannot be read ({error}): {said}"
        raise errors.UnavailableError(message) from error


def _object(body: bytes) -> Manifest:
    return cast(Manifest, _decoded(msgspec.json.decode, body or b"{}"))


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 1.0 if answer.status == 429 else 0.0


def _said(body: bytes) -> tuple[str, str]:
    """Reason and message of a refusal."""
    try:
        said = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return "", body[:200].decode(errors="replace")
    status = said if isinstance(said, dict) else {}
    return text(status, "reason"), text(status, "message")


def _raise(code: int, said: tuple[str, str], what: str, retry_after_seconds: float) -> NoReturn:
    kind = _KINDS.get(
        code, errors.UnavailableError if code in (429,) or code >= 500 else errors.ApiError
    )
    if code == 400 and _UNDECODED in said[1]:
        kind = errors.InvalidError
    raise kind(f"{what}: {code} {said[0]}: {said[1]}", code, retry_after_seconds)
