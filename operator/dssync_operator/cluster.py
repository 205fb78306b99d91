"""The only module that talks to the API server: a few verbs over plain manifests.

Configuration and credentials come from the official client; the requests are plain aiohttp,
because model objects cost six times the CPU and nothing here needs them. Refusals become the
exceptions of ``errors``. When the server asks to wait (429), every request waits, not only the
one that was refused.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import aiohttp
import orjson
from kubernetes.aio import config as client_config
from kubernetes.aio.client import Configuration
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME

from dssync_operator import errors
from dssync_operator.job import Manifest, child, text
from dssync_operator.metrics import Metrics

FIELD_MANAGER: Final = "dssync-operator"
REQUEST_SECONDS: Final = 30.0
WATCH_SILENCE_SECONDS: Final = 120.0
"""Bookmarks come every minute; a watch that is quiet for longer has lost its other end."""
CONNECTIONS: Final = 100
PAGE: Final = 500
METADATA_ONLY: Final = (
    "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
)
_KINDS: Final[Mapping[int, type[errors.ApiError]]] = {
    400: errors.InvalidError,
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
async def connect(credentials: Credentials) -> AsyncIterator[aiohttp.ClientSession]:
    """Open one pool of connections to the API server."""
    async with aiohttp.ClientSession(
        base_url=credentials.server,
        connector=aiohttp.TCPConnector(limit=CONNECTIONS, ssl=credentials.tls()),
        timeout=aiohttp.ClientTimeout(total=REQUEST_SECONDS),
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
        return await self._request("GET", path)

    async def create(self, path: str, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """Make an object; ``path`` is that of its collection.

        Raises:
            ExistsError: One of that name exists.
        """
        query = {"fieldManager": FIELD_MANAGER, **({"dryRun": "All"} if dry_run else {})}
        try:
            return await self._request("POST", path, manifest, query)
        except errors.ConflictError as error:
            if "AlreadyExists" not in str(error):
                raise
            raise errors.ExistsError(str(error), error.code) from None

    async def apply(self, path: str, manifest: Manifest) -> Manifest:
        """Make an object or bring our fields of it to what ``manifest`` says."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return await self._request(
            "PATCH", path, manifest, query, {"Content-Type": "application/apply-patch+yaml"}
        )

    async def replace(self, path: str, manifest: Manifest) -> Manifest:
        """Write an object if it is still the version that ``manifest`` names.

        Raises:
            ConflictError: It changed since.
        """
        return await self._request("PUT", path, manifest, {"fieldManager": FIELD_MANAGER})

    async def delete(self, path: str, uid: str) -> None:
        """Delete one object if it is still the one with that uid; one that is gone is success."""
        options = {"preconditions": {"uid": uid}, "propagationPolicy": "Background"}
        try:
            await self._request("DELETE", path, options)
        except (errors.NotFoundError, errors.ConflictError):
            return

    async def pages(
        self, path: str, selector: str = "", metadata_only: bool = False
    ) -> AsyncIterator[tuple[list[Manifest], str]]:
        """Read a collection in pages, each with the version that a watch may start from."""
        query = {"limit": str(PAGE), **({"labelSelector": selector} if selector else {})}
        headers = {"Accept": METADATA_ONLY.format("List")} if metadata_only else {}
        while True:
            page = await self._request("GET", path, None, query, headers)
            metadata = child(page, "metadata")
            yield cast(list[Manifest], page.get("items") or []), text(metadata, "resourceVersion")
            if not text(metadata, "continue"):
                return
            query["continue"] = text(metadata, "continue")

    async def watch(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Manifest]:
        """Yield events of a collection, trimmed to metadata, until the server ends the watch.

        Raises:
            GoneError: The version to start from is too old.
            UnavailableError: The connection broke, or was silent for too long.
        """
        headers = {"Accept": METADATA_ONLY.format("")}
        limits = aiohttp.ClientTimeout(
            sock_connect=REQUEST_SECONDS, sock_read=WATCH_SILENCE_SECONDS
        )
        try:
            async with await self._open("GET", path, None, query, headers, limits) as answer:
                async for line in answer.content:
                    event = orjson.loads(line)
                    if event.get("type") == "ERROR":
                        _raise(int(event["object"].get("code", 500)), event["object"], path, 0.0)
                    yield event
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise errors.UnavailableError(f"watch of {path} broke: {error!r}") from error

    async def _request(
        self,
        verb: str,
        path: str,
        body: Manifest | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Manifest:
        await self._wait_while_paused()
        if verb != "GET":
            self._guard()
        try:
            async with await self._open(verb, path, body, query or {}, headers or {}) as answer:
                said = orjson.loads(await answer.read() or b"{}")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._metrics.api_requests.labels(verb, "0").inc()
            message = f"{verb} {path}: no answer from {self._credentials.server}: {error!r}"
            raise errors.UnavailableError(message) from error
        return cast(Manifest, said)

    async def _open(
        self,
        verb: str,
        path: str,
        body: Manifest | None,
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
        data = None if body is None else orjson.dumps(body)
        answer = await self._session.request(
            verb, path, data=data, params=query, headers=sent, **options
        )
        self._metrics.api_requests.labels(verb, str(answer.status)).inc()
        if answer.status < 400:
            return answer
        async with answer:
            wait = _retry_after(answer)
            if answer.status == 429:
                self._pause(wait)
            _raise(answer.status, _status_of(await answer.read()), f"{verb} {path}", wait)

    def _pause(self, seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._paused_until = max(self._paused_until, until)

    async def _wait_while_paused(self) -> None:
        loop = asyncio.get_running_loop()
        while (left := self._paused_until - loop.time()) > 0:
            self._metrics.api_throttle_seconds.inc(left)
            await asyncio.sleep(left)


def _retry_after(answer: aiohttp.ClientResponse) -> float:
    value = answer.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else 1.0 if answer.status == 429 else 0.0


def _status_of(body: bytes) -> Manifest:
    try:
        said = orjson.loads(body)
    except ValueError:
        return {"message": body[:200].decode(errors="replace")}
    return said if isinstance(said, dict) else {}


def _raise(code: int, status: Manifest, what: str, retry_after_seconds: float) -> NoReturn:
    kind = _KINDS.get(
        code, errors.UnavailableError if code in (429,) or code >= 500 else errors.ApiError
    )
    reason, message = text(status, "reason"), text(status, "message")
    raise kind(f"{what}: {code} {reason}: {message}", code, retry_after_seconds)
