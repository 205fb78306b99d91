"""The few fields that the hot path reads of what the API server sends.

Ten thousand pods come by twice, as the answer to their creation and as an event, kilobytes each
although both are trimmed to metadata. Decoding only what is read costs a fifth of building the
whole object, and leaves nothing behind for the garbage collector.
"""

import msgspec

from dssync import contract


class Labels(msgspec.Struct, frozen=True, gc=False):
    """The label that says whose child an object is."""

    job_name: str = msgspec.field(name=contract.LABEL_JOB_NAME, default="")


class Metadata(msgspec.Struct, frozen=True, gc=False, rename="camel"):
    """Of an object's metadata."""

    namespace: str = ""
    name: str = ""
    uid: str = ""
    resource_version: str = ""
    creation_timestamp: str = ""
    labels: Labels | None = None


class Trimmed(msgspec.Struct, frozen=True, gc=False):
    """An object without spec and status, or the refusal in an event of type ERROR."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    code: int = 0
    reason: str = ""
    message: str = ""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One event of a watch."""

    type: str
    object: Trimmed


decode_trimmed = msgspec.json.Decoder(Trimmed).decode
decode_event = msgspec.json.Decoder(Event).decode
