"""Every exception that dssync raises on purpose, on one page.

::

    DssyncError
    ├── UsageError              a flag, variable or argument is wrong: fix the call
    │   └── ManifestError       a DSSyncJob manifest is wrong: path, value, expectation
    ├── ScheduleError           a schedule that cannot be built or would not mix
    ├── ModelError              a model that cannot be averaged, or differs from its mates'
    ├── ProtocolError           a peer sent what the protocol does not allow
    │   └── AuthenticationError a peer does not hold the job's token
    ├── ArbiterError            the arbiter cannot be reached, or is something else
    ├── RequestError            what people asked of a launcher was refused, or nobody answered
    ├── TransferError           state could not be streamed from a donor
    ├── CheckpointError         a checkpoint is not whole, or is none
    ├── ReplayError             a view log is not whole, or what is replayed departs from it
    └── CommunicatorError       a process group could not be built or its operation failed
        └── BuildCancelledError the build was cancelled because a member left

A message says what happened to which object, the offending value, what was expected and what
to do about it. ``UsageError`` and ``ModelError`` end a process with one sentence and no
traceback; everything else is either handled inside or a defect.
"""


class DssyncError(Exception):
    """Base of all errors that dssync raises on purpose."""


class UsageError(DssyncError):
    """A flag, an environment variable or an argument is wrong."""


class ManifestError(UsageError):
    """A DSSyncJob manifest does not fit the schema."""


class ScheduleError(DssyncError):
    """A schedule cannot be built, or its rounds would never mix all members."""


class ModelError(DssyncError):
    """A model cannot be averaged, or differs from those of the other members."""


class ProtocolError(DssyncError):
    """A peer sent something that the control protocol does not allow."""


class AuthenticationError(ProtocolError):
    """A peer could not show that it holds the job's token."""


class ArbiterError(DssyncError):
    """The arbiter's record could not be read or written, or is none."""


class RequestError(DssyncError):
    """A launcher could not be asked, or refused what it was asked."""


class TransferError(DssyncError):
    """Training state could not be received from, or sent by, a donor."""


class CheckpointError(DssyncError):
    """A checkpoint is not whole, was altered, or is of another job."""


class ReplayError(DssyncError):
    """A view log is not whole, or the script that is replayed is not the one that was recorded."""


class CommunicatorError(DssyncError):
    """A process group could not be built, or an operation on it failed."""


class BuildCancelledError(CommunicatorError):
    """The build of a process group was cancelled because a member left."""
