"""Decides which errors mean an outage of the tracking store or a full disk, and how long MLflow itself retries."""

from __future__ import annotations

import errno
import os
import re

UNREACHABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})
"""MLflow's error codes for a store that may answer later; other codes mean a wrong request."""

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

    if isinstance(error, MlflowException):
        return str(error.error_code) in UNREACHABLE
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


_PASSWORD = re.compile(r"(://[^\s:/@]*):\S*@")
_SECRET_FIELD = re.compile(r"(?i)([?&](?:\w*password|passwd|pwd|token|secret|sslkey)=)[^&\s'\")]+")


def without_password(text: str) -> str:
    """Return a text, such as a URI or an error's message, with the passwords of its URIs replaced by asterisks."""
    return _SECRET_FIELD.sub(r"\1***", _PASSWORD.sub(r"\1:***@", text))
