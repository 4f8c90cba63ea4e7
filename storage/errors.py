"""Every error a user can meet, in one tree. `exit_code` is the process's exit status (CONTRACT 3).

    PartitaError                     1   something went wrong inside
     ├── UsageError                  2   wrong use or bad input
     │    ├── CollectionError            the collection can't be read, or has nothing to cluster
     │    ├── PromptError                a prompt set is unknown or invalid
     │    ├── SessionError
     │    │    ├── UnknownSession        no session of that name
     │    │    ├── SessionExists         the name is taken
     │    │    └── SessionBusy           another process works on the session
     │    └── DatabaseError              the database can't be opened, read or written
     ├── Paused                      3   stopped on purpose (budget, Ctrl-C, SIGTERM); resumable
     └── EndpointError               4   the model's endpoint can't be used; resumable
          ├── EndpointUnreachable        no connection, or six transport faults in a row
          ├── EndpointRefused            401 or 403
          ├── ModelUnknown               the endpoint has no model of that name
          ├── EndpointMisbehaves         what comes back is not the API (HTML instead of JSON, ...)
          │    └── NoEmbeddings          there is chat, but no embeddings
          ├── LimitTooLow                the endpoint takes smaller questions than the session's settings make
          └── RequestRejected            400, 413 or 422 for one request
               └── QuestionTooLong       it is longer than the endpoint takes

The message is one line that says what is wrong and what to do next: a user sees it without a traceback. A message
never holds a key or a password.
"""

from __future__ import annotations

from typing import ClassVar


class PartitaError(Exception):
    """The root of the tree; `str(error)` is the one line a user sees."""

    exit_code: ClassVar[int] = 1


class UsageError(PartitaError):
    """Wrong use or bad input: nothing was lost, the next try can be right."""

    exit_code = 2


class CollectionError(UsageError):
    """The collection can't be read, has fewer than two usable items, or changed under a session."""


class PromptError(UsageError):
    """A prompt set is unknown, or its file is not valid."""


class SessionError(UsageError):
    """A session can't be used as asked."""


class UnknownSession(SessionError):
    """There is no session of that name in this database."""


class SessionExists(SessionError):
    """A session of that name is in this database already."""


class SessionBusy(SessionError):
    """Another process holds the session's lock."""


class DatabaseError(UsageError):
    """The database can't be opened, read or written, or what it holds is damaged or from a newer version."""


class Paused(PartitaError):
    """The session stopped on purpose and can be resumed."""

    exit_code = 3


class EndpointError(PartitaError):
    """The endpoint can't be used; finished calls are kept and the session can be resumed."""

    exit_code = 4


class EndpointUnreachable(EndpointError):
    """No connection, or too many transport faults in a row."""


class EndpointRefused(EndpointError):
    """The endpoint answered 401 or 403."""


class ModelUnknown(EndpointError):
    """The endpoint does not serve the model asked for."""


class EndpointMisbehaves(EndpointError):
    """The endpoint answers, but not in the API's format."""


class NoEmbeddings(EndpointMisbehaves):
    """The endpoint answers questions, but has no embeddings."""


class LimitTooLow(EndpointError):
    """The endpoint takes smaller questions than the session's settings make: no fault of one item.

    `images` is how many it takes in one question, where it says so.
    """

    def __init__(self, message: str, *, images: int | None = None) -> None:
        super().__init__(message)
        self.images = images


class RequestRejected(EndpointError):
    """The endpoint refused this one request as malformed or too large.

    `status` is its HTTP status, `parameter` the one of our parameters that it says it does not take.
    """

    def __init__(self, message: str, *, status: int = 400, parameter: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.parameter = parameter


class QuestionTooLong(RequestRejected):
    """The question, or the question and the longest reply to it, is longer than the endpoint takes."""
