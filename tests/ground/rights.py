"""What some tests need of root. Elsewhere they are left out, but not where CI requires them."""

import os

import pytest

REQUIRED = os.environ.get("DSSYNC_REQUIRE_ROOT") == "1"


def needs(right: bool, what: str) -> pytest.MarkDecorator:
    """Return the mark of tests that need a right.

    Args:
        right: whether this process has it.
        what: it allows.
    """
    return pytest.mark.skipif(not (right or REQUIRED), reason=f"needs the right to {what}")
