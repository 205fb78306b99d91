"""Who may read ``/metrics``: the API server knows, and is asked who a token is and what it may.

The same two reviews as those of ``kube-rbac-proxy``, so that one rule on the non-resource URL
``/metrics`` is all that a scraper needs.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Protocol

from dssync_operator import errors
from dssync_operator.job import Manifest, child

KEEP_SECONDS: Final = 60.0
"""A right that was taken away still opens for this long; a scraper comes more often."""
MOST_KEPT: Final = 100
_TOKENS: Final = "/apis/authentication.k8s.io/v1/tokenreviews"
_ACCESS: Final = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
_RIGHT: Final = {"path": "/metrics", "verb": "get"}


class Reviewer(Protocol):
    """What can be asked."""

    async def create(self, path: str, manifest: Manifest, dry_run: bool = False) -> Manifest:
        """See ``Cluster.create``."""
        ...


class Visitors:
    """Answers of the API server, each kept for a while."""

    def __init__(self, reviewer: Reviewer, clock: Callable[[], float]) -> None:
        self._reviewer = reviewer
        self._clock = clock
        self._kept: OrderedDict[bytes, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        """Answers that are kept."""
        return len(self._kept)

    async def answer(self, authorization: str) -> int:
        """Return the HTTP status for who shows this header."""
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or not token:
            return 401
        name = hashlib.sha256(token.encode()).digest()
        until, status = self._kept.get(name, (0.0, 0))
        if status and self._clock() < until:
            return status
        try:
            status = await self._ask(token)
        except errors.ApiError:
            return 503
        self._kept[name] = (self._clock() + KEEP_SECONDS, status)
        self._kept.move_to_end(name)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return status

    async def _ask(self, token: str) -> int:
        review = child(await self._reviewer.create(_TOKENS, {"spec": {"token": token}}), "status")
        if not review.get("authenticated"):
            return 401
        user = child(review, "user")
        who = {"user": user.get("username"), "uid": user.get("uid"), "groups": user.get("groups")}
        spec = {**who, "extra": user.get("extra"), "nonResourceAttributes": _RIGHT}
        access = await self._reviewer.create(_ACCESS, {"spec": spec})
        return 200 if child(access, "status").get("allowed") else 403
