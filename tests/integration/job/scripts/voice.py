"""How a training script talks to the test that watches it: lines out, permission back.

Everything that a script announces waits for the test's answer, so a test can stop a member at a
known point and kill it there. Reports of rounds are not answered.
"""

import json
import os
import socket
import threading
from typing import Any

SPEC: dict[str, Any] = json.loads(os.environ["JOB_SPEC"])
RANK = int(os.environ["LOCAL_RANK"])
SLOT = int(os.environ["GROUP_RANK"])
POD = os.environ["JOB_POD"]
"""Name of the launcher, for tests in which several follow each other in one slot."""
LIFE = int(os.environ["TORCHELASTIC_RESTART_COUNT"])

_wire = socket.socket(socket.AF_UNIX)
_wire.connect(os.environ["JOB_SOCKET"])
_answers = _wire.makefile("r")
_lock = threading.Lock()


def say(event: str, **fields: Any) -> None:
    """Send one line."""
    who = {"pod": POD, "slot": SLOT, "rank": RANK, "life": LIFE, "pid": os.getpid()}
    line = {"event": event, **who, **fields}
    with _lock:
        _wire.sendall(json.dumps(line).encode() + b"\n")


def announce(event: str, **fields: Any) -> None:
    """Send one line and wait until the test lets this member go on."""
    say(event, asks=True, **fields)
    _answers.readline()
