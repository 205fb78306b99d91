"""Which threads take a core from others when they wake up, and which wait for a free one.

Where workers share cores, a thread that is woken by a message takes the core of the one that is
still writing it. gloo's device threads then find their pair locked by the writer and spin until
their time slice is over: half the time of an all-reduce of 1 MB (docs/decisions,
2026-11-21-overhead-of-a-round). Linux' policy for batch work leaves out just that preemption; a
thread's share of the cores stays the same.
"""

import contextlib
import os
from collections.abc import Iterator


def wait_for_free_core() -> None:
    """Have the calling thread, and those that it starts, take no core from others."""
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextlib.contextmanager
def starting_patient_threads() -> Iterator[None]:
    """Have threads that are started inside take no core from others."""
    policy = os.sched_getscheduler(0)
    wait_for_free_core()
    try:
        yield
    finally:
        os.sched_setscheduler(0, policy, os.sched_param(0))
