"""A word of a worker to people: one sentence in its log."""

import sys


def tell(sentence: str) -> None:
    """Write a sentence to standard error, at once: the process may end with it."""
    print(f"dssync: {sentence}", file=sys.stderr, flush=True)
