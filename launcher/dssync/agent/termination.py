"""The pod's last word: a small JSON file that the kubelet copies into the pod's status.

Any exit code may also come from a user's script, so the verdict is told apart from it.
"""

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

_REASON_CHARACTERS: Final = 1024
"""The kubelet keeps 4096 bytes; a character may take three of them."""


@dataclass(frozen=True)
class Termination:
    """How this launcher ended."""

    verdict: str
    """One of ``contract.VERDICT_*``."""
    reason: str
    """One sentence for people; its end is kept if it is too long."""
    exit_code: int
    """Of the worker that decided it, 0 without a failure."""
    step: int
    """Last optimizer step that is known."""


def write(path: Path, termination: Termination) -> None:
    """Write the message where that is possible; nobody may be there to read it.

    Args:
        path: An existing file, or a new one in a directory that exists.
        termination: What to say.
    """
    fields = asdict(termination) | {"reason": termination.reason[-_REASON_CHARACTERS:]}
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(fields, ensure_ascii=False) + "\n", encoding="utf-8")
