"""Decides which errors mean that the tracking store is away for a while or a disk is full, and how long MLflow itself
goes on trying."""

from __future__ import annotations

import errno
import os

UNREACHABLE = frozenset({"TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR", "REQUEST_LIMIT_EXCEEDED", "DEADLINE_EXCEEDED"})
"""MLflow's codes for a store that may answer later; the others are mistakes of ours."""

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})

_SHORT_WAITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "AWS_MAX_ATTEMPTS": "2",  # of up to a minute each, where runs keep their files in S3 themselves
}  # fmt: skip


def store_errors() -> tuple[type[Exception], ...]:
    """What MLflow lets through: its own errors, and those of its database, its server and its object store."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, RequestException, Boto3Error, BotoCoreError, ClientError, OSError


def is_outage(error: Exception) -> bool:
    """Of one of `store_errors`: whether the store may answer later."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import OperationalError, SQLAlchemyError

    if isinstance(error, MlflowException):
        return str(error.error_code) in UNREACHABLE
    return isinstance(error, OperationalError) or not isinstance(error, SQLAlchemyError)


def is_full_disk(error: BaseException | None) -> bool:
    """Whether a disk without room, or a used-up quota, is what an error comes from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return False


def wait_briefly() -> None:
    """In this process and those it starts: MLflow by itself is silent for minutes when its server is gone."""
    for name, value in _SHORT_WAITS.items():
        os.environ.setdefault(name, value)
