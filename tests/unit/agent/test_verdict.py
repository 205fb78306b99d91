"""The launcher's own exit code, by which tools without its termination message judge a pod."""

import pytest

from dssync import contract
from dssync.agent.verdict import Verdict


@pytest.mark.parametrize(
    ("name", "worker_code", "launcher_code"),
    [
        (contract.VERDICT_DONE, 0, 0),
        (contract.VERDICT_DRAINED, 0, 0),
        (contract.VERDICT_USER_ERROR, 42, 42),
        (contract.VERDICT_USER_ERROR, -9, 137),
        (contract.VERDICT_USER_ERROR, 0, contract.EXIT_FAILED),
        (contract.VERDICT_FENCED, 0, contract.EXIT_FENCED),
        (contract.VERDICT_DO_NOT_RESTART, 93, contract.EXIT_DO_NOT_RESTART),
    ],
)
def test_a_launcher_ends_as_its_first_failed_worker(
    name: str, worker_code: int, launcher_code: int
) -> None:
    assert Verdict(name, "", worker_code).process_exit_code == launcher_code
