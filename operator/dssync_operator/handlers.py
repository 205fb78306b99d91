"""What kopf is asked for: the watch of jobs. An event becomes a key and nothing else.

kopf's change handlers, timers and daemons put annotations and finalizers on objects; ``on.event``
writes nothing. Its errors are swallowed, so nothing that can fail happens here.
"""

from collections.abc import Callable
from typing import Any, Final

import kopf

from dssync import contract
from dssync_operator.cluster import Credentials
from dssync_operator.owed import Owed
from dssync_operator.queue import Key


def register(
    credentials: Credentials, on_key: Callable[[Key], None], owed: Owed
) -> kopf.OperatorRegistry:
    """Return a registry that calls ``on_key`` for every job whose spec or life changed."""
    registry = kopf.OperatorRegistry()
    seen: dict[Key, tuple[Any, ...]] = {}

    @kopf.on.login(registry=registry)
    async def login(**_: object) -> kopf.ConnectionInfo:
        token = await credentials.token()
        certificate, key = credentials.certificate or (None, None)
        return kopf.ConnectionInfo(
            server=credentials.server,
            ca_path=credentials.ca_file,
            token=token.split(" ", 1)[-1] if token else None,
            scheme="Bearer" if token else None,
            certificate_path=certificate,
            private_key_path=key,
        )

    @kopf.on.event(contract.GROUP, contract.VERSION, contract.PLURAL, registry=registry)
    async def job_event(type: str | None, body: kopf.Body, **_: object) -> None:
        metadata = body.metadata
        key = (str(metadata.namespace), str(metadata.name))
        if type == "DELETED":
            seen.pop(key, None)
            owed.gone(key)
            return on_key(key)
        owed.told(key, int(metadata.get("generation", 0)))
        # Our own status writes come back as events; they leave the generation as it was.
        version = (metadata.uid, metadata.get("generation"), metadata.get("deletionTimestamp"))
        if type is None or seen.get(key) != version:
            seen[key] = version
            on_key(key)

    return registry


SERVER_SECONDS: Final = 300
"""Whole seconds: the API server refuses anything else."""


def settings() -> kopf.OperatorSettings:
    """Settings under which kopf reads jobs and does nothing else."""
    chosen = kopf.OperatorSettings()
    chosen.posting.enabled = False
    chosen.peering.standalone = True
    chosen.scanning.disabled = True
    chosen.watching.server_timeout = SERVER_SECONDS
    chosen.watching.client_timeout = SERVER_SECONDS + 10
    chosen.watching.connect_timeout = 30.0
    chosen.watching.chunk_size = 500
    chosen.networking.request_timeout = 30.0
    return chosen
