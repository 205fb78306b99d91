"""Answers that a healthy API server cannot be made to give, from a stub at the other end."""

import asyncio
import json

import pytest
from aiohttp import web

from dssync_operator import errors
from dssync_operator.cluster import Cluster
from dssync_operator.metrics import Metrics
from ground.stub import server


def refusal(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "reason": reason, "message": message}
    return web.json_response(body, status=code, headers=headers)


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (400, "BadRequest", errors.ForbiddenError),
        (401, "Unauthorized", errors.ApiError),
        (403, "Forbidden", errors.ForbiddenError),
        (404, "NotFound", errors.NotFoundError),
        (409, "Conflict", errors.ConflictError),
        (410, "Expired", errors.GoneError),
        (422, "Invalid", errors.InvalidError),
        (429, "TooManyRequests", errors.UnavailableError),
        (500, "InternalError", errors.UnavailableError),
        (503, "ServiceUnavailable", errors.UnavailableError),
    ],
)
async def test_each_refusal_has_its_exception_and_names_the_request(
    code: int, reason: str, kind: type[errors.ApiError]
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return refusal(code, reason, "because", **{"Retry-After": "0"})

    async with server(refuse) as cluster:
        with pytest.raises(errors.ApiError) as caught:
            await cluster.get("/api/v1/pods")

    assert type(caught.value) is kind
    assert str(caught.value) == f"GET /api/v1/pods: {code} {reason}: because"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            'Pod in version "v1" cannot be handled as a Pod: json: cannot unmarshal number into Go '
            "struct field Container.spec.containers.image of type string",
            errors.InvalidError,
        ),
        (
            'Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field '
            '"spec.containers[0].resorces"',
            errors.InvalidError,
        ),
        ('admission webhook "policy.example" denied the request: no', errors.ForbiddenError),
    ],
)
async def test_bad_request_is_a_fault_of_the_object_only_where_it_cannot_be_decoded(
    message: str, kind: type[errors.ApiError]
) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return refusal(400, "BadRequest", message)

    async with server(refuse) as cluster:
        with pytest.raises(errors.ApiError) as caught:
            await cluster.create("/api/v1/namespaces/a/pods", {}, dry_run=True)

    assert type(caught.value) is kind


async def test_request_to_wait_holds_all_requests_for_as_long_as_asked() -> None:
    loop = asyncio.get_running_loop()
    asked: list[float] = []

    async def busy_once(_: web.Request) -> web.Response:
        asked.append(loop.time())
        if len(asked) == 1:
            return refusal(429, "TooManyRequests", "later", **{"Retry-After": "1"})
        return web.json_response({})

    metrics = Metrics()
    async with server(busy_once, metrics) as cluster:
        with pytest.raises(errors.UnavailableError) as caught:
            await cluster.get("/a")
        await asyncio.gather(cluster.get("/b"), cluster.get("/c"))

    assert caught.value.retry_after_seconds == 1.0
    assert min(asked[1:]) - asked[0] >= 1.0
    waited = metrics.registry.get_sample_value("dssync_operator_api_throttle_seconds_total")
    assert waited is not None
    assert waited >= 1.0


async def test_body_that_is_no_json_is_still_an_error_with_a_sentence() -> None:
    async def broken(_: web.Request) -> web.Response:
        return web.Response(status=502, text="bad gateway")

    async with server(broken) as cluster:
        with pytest.raises(errors.UnavailableError, match="502 : bad gateway"):
            await cluster.get("/a")


async def test_answer_that_breaks_off_is_unavailable() -> None:
    async def break_off(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async with server(break_off) as cluster:
        with pytest.raises(errors.UnavailableError, match="no answer from"):
            await cluster.get("/a")


async def test_guard_stops_writes_and_not_reads() -> None:
    seen: list[str] = []

    async def note(request: web.Request) -> web.Response:
        seen.append(request.method)
        return web.json_response({})

    def forbid() -> None:
        raise errors.LeadershipLostError("lost")

    async with server(note) as cluster:
        guarded = Cluster(cluster._session, cluster._credentials, Metrics(), forbid)
        await guarded.get("/a")
        with pytest.raises(errors.LeadershipLostError):
            await guarded.create("/a", {})

    assert seen == ["GET"]


async def test_watch_that_cannot_be_resumed_is_gone() -> None:
    async def too_old(_: web.Request) -> web.Response:
        status = {"code": 410, "reason": "Expired", "message": "too old resource version"}
        return web.Response(text=json.dumps({"type": "ERROR", "object": status}) + "\n")

    async with server(too_old) as cluster:
        with pytest.raises(errors.GoneError, match="too old resource version"):
            async for _ in cluster.watch("/api/v1/pods", {}):
                pass


async def test_watch_reads_events_that_come_in_pieces_or_together() -> None:
    names = ["a", "b", "c"]
    lines = [
        json.dumps({"type": "ADDED", "object": {"metadata": {"name": name}}}).encode() + b"\n"
        for name in names
    ]
    pieces = [lines[0][:20], lines[0][20:] + lines[1] + lines[2][:5], lines[2][5:]]

    async def trickle(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for piece in pieces:
            await answer.write(piece)
            await asyncio.sleep(0)
        return answer

    async with server(trickle) as cluster:
        events = [event async for event in cluster.watch("/api/v1/pods", {})]

    assert [event.object.metadata.name for event in events] == names


async def test_good_status_with_a_body_that_cannot_be_read_is_unavailable() -> None:
    async def garble(_: web.Request) -> web.Response:
        return web.Response(text="<html>", status=201)

    async with server(garble) as cluster:
        with pytest.raises(errors.UnavailableError, match=r"cannot be read.*<html>"):
            await cluster.create_from("/api/v1/namespaces/ns/pods", b"{}")


async def test_little_is_asked_for_of_a_new_pod_and_all_that_is_wrong_of_a_dry_run() -> None:
    asked: list[tuple[str, str]] = []

    async def note(request: web.Request) -> web.Response:
        asked.append((request.query["fieldValidation"], request.headers["Accept"]))
        return web.json_response({"metadata": {"name": "demo-w0-0"}}, status=201)

    async with server(note) as cluster:
        made = await cluster.create_from("/api/v1/namespaces/ns/pods", b"{}")
        await cluster.create("/api/v1/namespaces/ns/pods", {}, dry_run=True)

    assert made.name == "demo-w0-0"
    (lax, trimmed), (strict, whole) = asked
    assert (lax, strict) == ("Ignore", "Strict")
    assert "as=PartialObjectMetadata" in trimmed
    assert "PartialObjectMetadata" not in whole


async def test_answers_are_asked_for_uncompressed() -> None:
    asked: list[str] = []

    async def note(request: web.Request) -> web.Response:
        asked.append(request.headers["Accept-Encoding"])
        return web.json_response({"items": []})

    async with server(note) as cluster:
        await cluster.get("/api/v1/pods")

    assert asked == ["identity"]
