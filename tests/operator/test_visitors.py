"""Whom the operator lets read its metrics, and how seldom it asks for that."""

from dssync_operator import errors
from dssync_operator.job import Manifest
from dssync_operator.visitors import KEEP_SECONDS, MOST_KEPT, Visitors


class Reviews:
    """An API server's answers to reviews: ``right`` is a token that may read."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = False

    async def create(self, path: str, manifest: Manifest, dry_run: bool = False) -> Manifest:
        if self.away:
            raise errors.UnavailableError("no answer")
        self.asked.append(path.rpartition("/")[2])
        spec = manifest["spec"]
        assert isinstance(spec, dict)
        if path.endswith("tokenreviews"):
            known = spec["token"] in ("right", "wrong")
            return {"status": {"authenticated": known, "user": {"username": spec["token"]}}}
        return {"status": {"allowed": spec["user"] == "right"}}


async def test_answer_is_kept_for_a_while_and_then_asked_for_anew() -> None:
    reviews, now = Reviews(), [0.0]
    visitors = Visitors(reviews, lambda: now[0])

    assert [await visitors.answer("Bearer right") for _ in range(3)] == [200, 200, 200]
    assert reviews.asked == ["tokenreviews", "subjectaccessreviews"]
    now[0] += KEEP_SECONDS
    await visitors.answer("Bearer right")
    assert len(reviews.asked) == 4


async def test_server_out_of_reach_lets_nobody_in_and_is_asked_again() -> None:
    reviews = Reviews()
    visitors = Visitors(reviews, lambda: 0.0)
    reviews.away = True

    assert await visitors.answer("Bearer right") == 503
    reviews.away = False
    assert await visitors.answer("Bearer right") == 200


async def test_strangers_cannot_fill_the_memory() -> None:
    visitors = Visitors(Reviews(), lambda: 0.0)

    for number in range(3 * MOST_KEPT):
        assert await visitors.answer(f"Bearer guess-{number}") == 401

    assert len(visitors) <= MOST_KEPT
