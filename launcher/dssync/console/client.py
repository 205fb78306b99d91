"""Asks a launcher, and the coordinator that it names."""

import asyncio

from dssync.console.find import Target
from dssync.control.address import endpoint_of
from dssync.control.requests import ANSWER, MARK, REQUEST, Answer, Elsewhere, Refused, Request
from dssync.control.transport import connect
from dssync.errors import AuthenticationError, RequestError

ANSWER_SECONDS = 10.0
HOPS = 3
"""Coordinators that are named one after the other before it is given up."""


async def ask(target: Target, request: Request) -> Answer:
    """Return the coordinator's answer to a request.

    Raises:
        RequestError: nobody answers there, or the request is refused.
    """
    for _ in range(HOPS):
        answer = await _ask_once(target, request)
        if isinstance(answer, Refused):
            raise RequestError(answer.reason)
        if not isinstance(answer, Elsewhere):
            return answer
        target = Target(*endpoint_of(answer.address), target.token)
    raise RequestError(
        f"{target.host}:{target.port} names another coordinator again and again: ask later"
    )


async def _ask_once(target: Target, request: Request) -> Answer:
    where = f"{target.host}:{target.port}"
    loop = asyncio.get_running_loop()
    answered: asyncio.Future[bytes] = loop.create_future()

    def frame(payload: bytes) -> None:
        if not answered.done():
            answered.set_result(payload)

    def lost() -> None:
        if not answered.done():
            answered.set_exception(RequestError(f"{where} went away before it had answered"))

    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            connection = await connect(target.host, target.port, target.token, frame, lost)
            try:
                connection.send(MARK + REQUEST.encode(request))
                return ANSWER.decode(await answered)
            finally:
                connection.close()
    except TimeoutError:
        raise RequestError(f"{where} did not answer within {ANSWER_SECONDS:g} s") from None
    except AuthenticationError as error:
        raise RequestError(f"{error}; name the job's with --token-file") from None
    except OSError as error:
        raise RequestError(f"nobody can be asked at {where}: {error.strerror or error}") from None
