"""One question about a job per module, each answered by pure functions."""
