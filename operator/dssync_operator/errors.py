"""Every exception that the operator raises on purpose, on one page.

::

    OperatorError
    ├── SettingsError     a variable of the operator's environment is wrong: fix the chart's values
    ├── LeadershipLost    another replica may lead by now: end the process
    └── ApiError          the API server refused a request or could not be reached
        ├── NotFoundError     the object does not exist
        ├── ExistsError       an object of that name exists already
        ├── ConflictError     the object changed since it was read: read it again
        ├── InvalidError      the object does not fit its schema or a rule of it
        ├── ForbiddenError    a right or a quota is missing, or a policy says no
        ├── GoneError         a watch cannot go on from where it was: list again
        └── UnavailableError  the server asks to wait, is ill or out of reach: try later
"""


class OperatorError(Exception):
    """Base of all errors that the operator raises on purpose."""


class SettingsError(OperatorError):
    """A variable of the operator's environment is wrong."""


class LeadershipLostError(OperatorError):
    """This replica could not renew its Lease in time, so another one may act by now."""


class ApiError(OperatorError):
    """The API server refused a request, or it could not be reached.

    Attributes:
        code: HTTP status; 0 when there was no answer.
        retry_after_seconds: How long the server asks to wait; 0 when it does not say.
    """

    def __init__(self, message: str, code: int = 0, retry_after_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after_seconds = retry_after_seconds


class NotFoundError(ApiError):
    """The object does not exist."""


class ExistsError(ApiError):
    """An object of that name exists already."""


class ConflictError(ApiError):
    """The object changed since it was read."""


class InvalidError(ApiError):
    """The object does not fit its schema or breaks one of its rules."""


class ForbiddenError(ApiError):
    """A right or a quota is missing, or a policy says no."""


class GoneError(ApiError):
    """A watch cannot be resumed from where it was."""


class UnavailableError(ApiError):
    """The server asks to wait, is ill, or cannot be reached."""
