"""Decides which errors mean an outage of the tracking store or a full disk, and how long MLflow itself retries."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import TypeVar

from schemas.errors import StoreUnreachable
from workers.tracking.access import is_denied

Answer = TypeVar("Answer")

UNREACHABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})
"""MLflow's error codes for a store that may answer later; other codes mean a wrong request."""

_NOT_UNDERSTOOD = "Invalid HTTP request received"
"""What MLflow's web server answers, with 400, to a request of which the connection has lost a part."""

BRIEF_TRIES = 4
"""Tries of a request that is worth some seconds of waiting, but not the whole patience."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_SHORT_WAITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "AWS_MAX_ATTEMPTS": "2",  # of up to a minute each, if clients access S3 directly
}  # fmt: skip


def store_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions that MLflow raises: its own, and those of its database, its server and its object store."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, RequestException, Boto3Error, BotoCoreError, ClientError, OSError


def is_outage(error: Exception) -> bool:
    """Return whether the store may answer later, after one of `store_errors`."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    if is_denied(error):
        return False
    if isinstance(error, MlflowException):
        return str(error.error_code) in UNREACHABLE or _NOT_UNDERSTOOD in str(error)
    return isinstance(error, OperationalError) or not isinstance(error, SQLAlchemyError)


def is_full_disk(error: BaseException | None) -> bool:
    """Return whether an error was caused by a full disk or an exhausted quota."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def wait_briefly() -> None:
    """Shorten MLflow's retries in this process and its children: its defaults block for minutes without a server."""
    for name, value in _SHORT_WAITS.items():
        os.environ.setdefault(name, value)


def briefly_patient(call: Callable[[], Answer]) -> Answer:
    """Return what a call returns, which is repeated for some seconds while the store does not answer.

    Raises:
        StoreUnreachable: the store still does not answer.
    """
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential

    answer: Answer = Retrying(
        retry=retry_if_exception_type(StoreUnreachable), stop=stop_after_attempt(BRIEF_TRIES),
        wait=wait_exponential(1.0, max=4.0), reraise=True,
    )(call)  # fmt: skip
    return answer
